"""The part of a dataset on which learning curves are compared."""

from harness.split import Sequences
from tests.parity.training import most_frequent


def test_rare_items_and_short_users_are_left_out_and_ids_follow_frequency():
    users = [[9, 5, 7, 5, 9], [9, 7, 3, 9], [9, 5, 9, 7, 5], [5, 4, 9]]
    kept = most_frequent(Sequences.from_lists(users), 3)
    assert kept.num_items == 3
    assert [kept.of_user(user).tolist() for user in range(kept.num_users)] == [[1, 2, 3, 2, 1], [1, 2, 1, 3, 2]]
