"""Sequences to measure on: a file, or generated ones of Amazon Beauty's shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.split import Sequences

BEAUTY = Path("results/paper/data/beauty/sequences.npz")  # where the workflow puts it


def generated(num_users: int, num_items: int, mean_length: float, *, seed: int = 0) -> Sequences:
    """Random sequences of at least five items; lengths are geometric, so that their mean is `mean_length`."""
    rng = np.random.default_rng(seed)
    lengths = 4 + rng.geometric(1 / (mean_length - 4), num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(rng.integers(1, num_items + 1, offsets[-1], dtype=np.int32), offsets, num_items)


def load(path: Path | None) -> tuple[Sequences, str]:
    """Beauty from `path` or where the workflow puts it, otherwise a generated stand-in; and which it was."""
    path = path or (BEAUTY if BEAUTY.is_file() else None)
    if path is None:
        return generated(22363, 12101, 8.9), "generated, shape of Beauty"
    sequences = Sequences.load(path)
    return sequences, f"{sequences.num_users} users, {sequences.num_items} items, sha256 {sequences.sha256[:12]}"
