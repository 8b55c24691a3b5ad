"""A small dataset with histories of unequal length, shared by all comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.compute import Compute
from harness.split import Sequences, Split, leave_one_out
from harness.streams import Streams
from harness.windows import ResidentSequences, pad_left

NUM_USERS, NUM_ITEMS, MAX_LEN = 24, 60, 12


def split() -> Split:
    """Users with 5 to 16 actions: some padded, some longer than MAX_LEN, no item twice."""
    rng = np.random.default_rng(0)
    users = [(rng.permutation(NUM_ITEMS)[:length] + 1).tolist() for length in rng.integers(5, 17, NUM_USERS)]
    return leave_one_out(Sequences.from_lists(users, NUM_ITEMS), dataset="toy")


def learner(build: Callable[..., Any], **settings: Any) -> Any:
    """A learner of ours on the toy data, in training mode."""
    made = build({"max_len": MAX_LEN} | settings, split().training_view(), Streams(1), Compute())
    made.module.train()
    return made


def histories() -> Tensor:
    """All users' histories at test time, left-padded.  [NUM_USERS, MAX_LEN]"""
    data = ResidentSequences.of(split().history("test"))
    return pad_left(data.histories(torch.arange(NUM_USERS), MAX_LEN), MAX_LEN)
