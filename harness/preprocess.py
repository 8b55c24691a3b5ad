"""From coded interactions to sequences: duplicates, k-core, chronological order, renumbering, statistics.

The order of the steps: duplicates first (if asked for), then the k-core, then the order within users.
Amazon's 2014 "5-core" files are already filtered, so the 5-core leaves them alone. MovieLens-1M is not: the
published 3,416 items and 999,611 actions need every item to have five actions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.interactions import Interactions
from harness.split import Sequences


@dataclass(frozen=True)
class Processed:
    """Sequences with the way back to the raw file.

    user_labels: row u of the sequences is the user that the file calls user_labels[u]
    item_labels: item i is called item_labels[i - 1]
    dropped:     users, items and actions lost to the filter, and duplicate actions
    tied:        actions with the timestamp of the action before them, same user; None without timestamps
    repeated:    of these the ones with the same item, too
    """

    sequences: Sequences
    user_labels: list[str]
    item_labels: list[str]
    dropped: dict[str, int]
    tied: int | None
    repeated: int | None


def process(
    interactions: Interactions, *, min_user: int = 0, min_item: int = 0, deduplicate: bool = False
) -> Processed:
    """Filter, order and renumber.

    Users keep the order in which the file first mentions them. A user's equal timestamps keep file order.
    Items are numbered 1, 2, ... by first appearance in the result, users concatenated.

    Raises ValueError if nothing is left.
    """
    user_N, item_N, time_N = interactions.user_N, interactions.item_N, interactions.time_N
    total = len(user_N)
    if deduplicate:
        first = first_of_each_pair(user_N, item_N)
        user_N, item_N, time_N = _take(first, user_N, item_N, time_N)
    duplicates = total - len(user_N)
    core = core_rows(user_N, item_N, min_user=min_user, min_item=min_item)
    if core is not None:
        user_N, item_N, time_N = _take(core, user_N, item_N, time_N)
    if not len(user_N):
        raise ValueError(
            f"filter: none of {total} interactions is left with min_user {min_user} and min_item {min_item}; lower them"
        )
    order = chronological_order(user_N, time_N)
    user_N, item_N, time_N = _take(order, user_N, item_N, time_N)
    tied_N = None if time_N is None else (np.diff(user_N) == 0) & (np.diff(time_N) == 0)
    starts = np.flatnonzero(np.diff(user_N, prepend=-1))
    offsets = np.append(starts, len(user_N)).astype(np.int64)
    items, old_codes = renumbered(item_N)
    sequences = Sequences(items, offsets, len(old_codes))
    return Processed(
        sequences,
        user_labels=[interactions.user_labels[code] for code in user_N[starts].tolist()],
        item_labels=[interactions.item_labels[code] for code in old_codes.tolist()],
        dropped={
            "duplicates": duplicates,
            "users": len(interactions.user_labels) - sequences.num_users,
            "items": len(interactions.item_labels) - sequences.num_items,
            "actions": total - duplicates - len(items),
        },
        tied=None if tied_N is None else int(tied_N.sum()),
        repeated=None if tied_N is None else int((tied_N & (np.diff(item_N) == 0)).sum()),
    )


def _take(rows: NDArray[np.int64], user_N: Any, item_N: Any, time_N: Any) -> tuple[Any, Any, Any]:
    return user_N[rows], item_N[rows], None if time_N is None else time_N[rows]


def first_of_each_pair(user_N: NDArray[np.int32], item_N: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the rows, in file order, where a (user, item) pair appears for the first time in the file."""
    pair_N = user_N.astype(np.int64) * (int(item_N.max(initial=0)) + 1) + item_N
    return np.sort(np.unique(pair_N, return_index=True)[1])


def core_rows(
    user_N: NDArray[np.int32], item_N: NDArray[np.int32], *, min_user: int, min_item: int
) -> NDArray[np.int64] | None:
    """Return the rows of the k-core, in file order, or None if every row belongs to it.

    Users and items below their minimum are dropped together and again until none is below. The largest set of
    rows with that property is unique, so the order of dropping does not matter.
    """
    row_N: NDArray[np.int64] | None = None
    while True:
        keep = (np.bincount(user_N) >= min_user)[user_N] & (np.bincount(item_N) >= min_item)[item_N]
        if keep.all():
            return row_N
        row_N = np.flatnonzero(keep) if row_N is None else row_N[keep]
        user_N, item_N = user_N[keep], item_N[keep]


def chronological_order(user_N: NDArray[np.int32], time_N: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """Return the rows sorted by user, then time; equal times keep their order (both sorts are stable)."""
    if time_N is None:
        return stable_order(user_N)
    by_time = stable_order(time_N)
    return by_time[stable_order(user_N[by_time])]


def stable_order(key_N: NDArray[Any]) -> NDArray[np.int64]:
    """Return np.argsort(key_N, kind="stable").

    Whole-number keys are packed with their row into one integer each: sorting those is several times faster.
    """
    row_bits = len(key_N).bit_length()
    low, high = key_N.min(), key_N.max()
    is_whole = bool((key_N == np.floor(key_N)).all())
    if not is_whole or abs(low) >= 2**53 or int(high - low).bit_length() + row_bits > 62:
        return np.argsort(key_N, kind="stable")
    packed_N = (key_N - low).astype(np.int64)
    packed_N <<= row_bits
    packed_N |= np.arange(len(key_N))
    packed_N.sort()
    packed_N &= (1 << row_bits) - 1
    return packed_N


def renumbered(item_N: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return ids 1, 2, ... by first appearance, and the old code of each new id in turn."""
    first = np.full(int(item_N.max()) + 1, len(item_N), dtype=np.int64)
    first[item_N[::-1]] = np.arange(len(item_N) - 1, -1, -1)
    present = np.flatnonzero(first < len(item_N))
    old_codes = present[np.argsort(first[present])]
    new_of = np.zeros(len(first), dtype=np.int32)
    new_of[old_codes] = np.arange(1, len(old_codes) + 1)
    return new_of[item_N], old_codes


def fingerprint(sequences: Sequences) -> str:
    """Return the sha256 of the sequences as text: a line per user, its item ids separated by single spaces.

    Items are numbered by first appearance, so two sources agree whatever they call users and items.
    """
    items, old_codes = renumbered(sequences.items)
    name_I = [str(item) for item in range(len(old_codes) + 1)]
    digest = hashlib.sha256()
    ends = sequences.offsets.tolist()
    for start, end in zip(ends[:-1], ends[1:], strict=True):
        digest.update(f"{' '.join([name_I[item] for item in items[start:end].tolist()])}\n".encode())
    return digest.hexdigest()


def statistics(sequences: Sequences) -> dict[str, Any]:
    """Return the dataset's row of Table 1, sparsity in percent, and its fingerprint."""
    lengths = sequences.lengths
    users, items, actions = sequences.num_users, sequences.num_items, len(sequences.items)
    return {
        "users": users,
        "items": items,
        "actions": actions,
        "avg_len": actions / users,
        "min_len": int(lengths.min()),
        "median_len": float(np.median(lengths)),
        "max_len": int(lengths.max()),
        "sparsity_percent": 100 * (1 - actions / (users * items)),
        "fingerprint": fingerprint(sequences),
    }
