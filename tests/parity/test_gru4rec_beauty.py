"""How the official port's scores become ranks, with a network that only remembers the last item."""

from types import SimpleNamespace

import pandas as pd
import torch

from harness.split import Sequences, leave_one_out
from tests.parity.gru4rec_beauty import ranks, sessions


class Ids:
    """In place of item vectors."""

    weight = None

    def __call__(self, item_B):
        return item_B[:, None].float()


class LastItem:
    """The next item's score is 2, that of every other one 1; items are numbered as in training, from 0."""

    layers, Wy, By = (1,), Ids(), Ids()

    def hidden_step(self, x_BD, state):
        state[0] = x_BD

    def score_items(self, state_BH, weight, bias):
        return 1 + torch.nn.functional.one_hot((state_BH[:, 0].long() + 1) % 4, 4).float()


def test_ties_count_against_the_target_and_items_that_training_lacks_come_last():
    split = leave_one_out(Sequences.from_lists([[1, 2, 3, 4], [3, 4, 2, 1], [2, 3, 4, 5]]))
    known = pd.Series(range(4), index=[1, 2, 3, 4])
    model = SimpleNamespace(model=LastItem(), data_iterator=SimpleNamespace(itemidmap=known))
    assert ranks(model, split, "val").tolist() == [1, 4, 1]
    assert ranks(model, split, "test").tolist() == [1, 4, 5]


def test_sessions_keep_the_order_of_users_and_of_their_items():
    frame = sessions(Sequences.from_lists([[2, 1], [3, 1, 2]]))
    assert frame["SessionId"].tolist() == [0, 0, 1, 1, 1]
    assert frame["ItemId"].tolist() == [2, 1, 3, 1, 2]
    assert frame["Time"].is_monotonic_increasing
