"""Toy data sets have the answers they claim."""

from harness.synthetic import chain, random_walk


def rows_of(sequences):
    return [sequences.of_user(user).tolist() for user in range(sequences.num_users)]


def test_chain_is_fully_predictable():
    rows = rows_of(chain(num_users=50, num_items=7, min_length=5, max_length=9))
    assert {len(row) for row in rows} == {5, 6, 7, 8, 9}
    assert all(after == before % 7 + 1 for row in rows for before, after in zip(row, row[1:], strict=False))
    assert {item for row in rows for item in row} == set(range(1, 8))


def test_random_walk_repeats_no_item_and_follows_the_chain_mostly():
    rows = rows_of(random_walk(num_users=200, num_items=50, noise=0.3))
    assert all(len(row) == len(set(row)) for row in rows)
    steps = [after == before % 50 + 1 for row in rows for before, after in zip(row, row[1:], strict=False)]
    assert 0.6 < sum(steps) / len(steps) < 0.8


def test_seeds_repeat_and_differ():
    for make in (chain, random_walk):
        one, again, other = (make(num_users=20, num_items=30, seed=seed).sha256 for seed in (1, 1, 2))
        assert one == again != other
