"""Toy datasets with known answers, for tests and benchmarks."""

from __future__ import annotations

import numpy as np

from harness.split import Sequences


def chain(*, num_users: int, num_items: int, min_length: int = 5, max_length: int = 12, seed: int = 0) -> Sequences:
    """Each user walks item -> item + 1 (after the last comes 1 again) from a random start: fully predictable."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_users):
        length = int(rng.integers(min_length, max_length + 1))
        start = int(rng.integers(num_items))
        rows.append([(start + step) % num_items + 1 for step in range(length)])
    return Sequences.from_lists(rows, num_items)


def random_walk(
    *,
    num_users: int,
    num_items: int,
    min_length: int = 5,
    max_length: int = 30,
    noise: float = 0.3,
    seed: int = 0,
) -> Sequences:
    """A noisy chain without repeats inside a user: with probability `noise` the next item is a random one."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_users):
        length = int(rng.integers(min_length, min(max_length, num_items) + 1))
        row = [int(rng.integers(1, num_items + 1))]
        seen = set(row)
        while len(row) < length:
            item = row[-1] % num_items + 1
            if rng.random() < noise or item in seen:
                item = int(rng.choice([i for i in range(1, num_items + 1) if i not in seen]))
            row.append(item)
            seen.add(item)
        rows.append(row)
    return Sequences.from_lists(rows, num_items)
