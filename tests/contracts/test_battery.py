"""The battery finds the faults it is for, and says what is wrong: planted in a model that is the mean of its items."""

from __future__ import annotations

import pytest
import torch

from harness.streams import Streams
from tests.contracts import battery


class MeanPool:
    """Reads four items; what `fault` names is done wrong."""

    max_len = 4

    def __init__(self, num_items: int, fault: str) -> None:
        self.module = torch.nn.Embedding(num_items + 1, 8, padding_idx=0)
        self.fault = fault

    def score(self, history_BL, user_B, noise):
        count_B = (history_BL > 0).sum(1, keepdim=True)
        if self.fault == "padding counts":
            count_B = torch.full_like(count_B, history_BL.shape[1])
        return self.module(history_BL).sum(1) / count_B @ self.module.weight.T


@pytest.fixture
def planted(monkeypatch):
    def plant(fault: str) -> None:
        def build(method, split, seed=1):
            streams = Streams(seed)
            if fault != "no seed":
                streams.seed_global("init")
            return MeanPool(split.num_items, fault), streams

        monkeypatch.setattr(battery, "build", build)

    return plant


CHECKS = (battery.check_build_is_seeded, battery.check_padding_and_batch_mates_do_not_matter)


def test_a_sound_model_passes(planted):
    planted("none")
    for check in CHECKS:
        check(None)


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [("no seed", CHECKS[0], "seed_global"), ("padding counts", CHECKS[1], "width of the padding")],
)
def test_a_planted_fault_is_named(planted, fault, check, message):
    planted(fault)
    with pytest.raises(AssertionError, match=message):
        check(None)
