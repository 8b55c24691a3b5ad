"""How the official port's scores become ranks, by a network that only remembers the last item; and the command."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from harness.split import Sequences, leave_one_out
from harness.synthetic import chain
from tests.parity import checkouts, record
from tests.parity.gru4rec_beauty import VARIANTS, main, ranks, sessions


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


def test_without_a_checkout_it_says_how_to_get_one(tmp_path):
    with pytest.raises(ValueError, match=r"no checkout; git clone .*GRU4Rec_PyTorch_Official"):
        main(["--references", str(tmp_path)])


def test_the_port_trains_and_its_figures_are_recorded(tmp_path):
    folder, out = checkouts.default_folder(), tmp_path / "parity.json"
    if obstacle := checkouts.obstacle("gru4rec", folder):
        pytest.skip(obstacle)
    chain(num_users=400, num_items=60).save(tmp_path / "sequences.npz")
    assert main(["--sequences", str(tmp_path / "sequences.npz"), "--epochs", "5", "--out", str(out)]) == 0
    figures = record.load(out)["gru4rec"]["beauty"]["metrics, seen items kept, as fractions"]
    assert list(figures) == sorted(VARIANTS)
    assert all(parts["test"]["HR@10"] > 0.5 for parts in figures.values())  # by chance 0.17
