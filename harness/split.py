"""Interaction sequences and the leave-one-out split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MIN_LENGTH = 3  # one training item, one validation target, one test target


@dataclass(frozen=True)
class Sequences:
    """Ragged item sequences, oldest item first, one row per user.

    items:     int32 [N], each in 1..num_items; 0 is the padding id and is never stored
    offsets:   int64 [U + 1]; user u owns items[offsets[u]:offsets[u + 1]]
    num_items: size of the catalogue without padding

    Raises ValueError if the arrays do not describe such sequences.
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    num_items: int

    def __post_init__(self) -> None:
        if not all(array.ndim == 1 and array.dtype.kind in "iu" for array in (self.items, self.offsets)):
            raise ValueError("sequences: items and offsets must be one-dimensional arrays of integers")
        if len(self.offsets) < 2 or self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError("sequences: offsets must start at 0 and end at the number of items")
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("sequences: offsets must not decrease")
        if len(self.items) == 0:
            raise ValueError("sequences: the dataset is empty")
        low, high = int(self.items.min()), int(self.items.max())
        if low < 1 or high > self.num_items:
            raise ValueError(f"sequences: item ids span {low}..{high}, legal are 1..{self.num_items}")

    @classmethod
    def from_lists(cls, rows: list[list[int]], num_items: int | None = None) -> Sequences:
        """Build from one list of item ids per user; num_items defaults to the largest id."""
        lengths = [len(row) for row in rows]
        items = np.array([item for row in rows for item in row], dtype=np.int32)
        if num_items is None:
            num_items = int(items.max(initial=0))
        return cls(items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), num_items)

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @cached_property
    def sha256(self) -> str:
        """Digest of the arrays; every run record carries it."""
        digest = hashlib.sha256(f"{self.num_items};".encode())
        digest.update(np.ascontiguousarray(self.offsets, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.items, dtype="<i4").tobytes())
        return digest.hexdigest()

    def of_user(self, user: int) -> NDArray[np.int32]:
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def save(self, path: str | Path) -> None:
        np.savez_compressed(path, items=self.items, offsets=self.offsets, num_items=np.int64(self.num_items))

    @classmethod
    def load(cls, path: str | Path) -> Sequences:
        """Read an archive written by `save`. Raises ValueError naming the file if it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(archive["items"], archive["offsets"], int(archive["num_items"]))
        except (OSError, KeyError, EOFError, ValueError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path}: not a readable sequence archive ({error}); delete it and run again") from error
        except Exception as error:  # zipfile.BadZipFile and zlib.error share no narrower base class
            raise ValueError(f"{path}: damaged archive ({error}); delete it and run again") from error


@dataclass(frozen=True)
class TrainingView:
    """What a method may see while it trains: no target of validation or test exists here to leak."""

    train: Sequences

    @property
    def num_items(self) -> int:
        return self.train.num_items

    @property
    def num_users(self) -> int:
        return self.train.num_users


@dataclass(frozen=True)
class Split:
    """Leave-one-out: a user's last item is the test target, the one before it the validation target."""

    dataset: str
    train: Sequences
    val_target_U: NDArray[np.int32]
    test_target_U: NDArray[np.int32]
    sha256: str

    @property
    def num_items(self) -> int:
        return self.train.num_items

    @property
    def num_users(self) -> int:
        return self.train.num_users

    def training_view(self) -> TrainingView:
        return TrainingView(self.train)

    def history(self, part: str) -> Sequences:
        """Known items when `part` is predicted: for "test" they include the validation item."""
        if part == "val":
            return self.train
        if part == "test":
            return append_item(self.train, self.val_target_U)
        raise ValueError(f"part {part!r}: legal values are 'val' and 'test'")

    def target_U(self, part: str) -> NDArray[np.int32]:
        if part == "val":
            return self.val_target_U
        if part == "test":
            return self.test_target_U
        raise ValueError(f"part {part!r}: legal values are 'val' and 'test'")


def append_item(sequences: Sequences, item_U: NDArray[np.int32]) -> Sequences:
    """Return the sequences with one more item at the end of each user's row."""
    ends = sequences.offsets[1:]
    items = np.insert(sequences.items, ends, item_U)
    offsets = sequences.offsets + np.arange(sequences.num_users + 1)
    return Sequences(items.astype(np.int32), offsets, sequences.num_items)


def drop_first_item(sequences: Sequences) -> Sequences:
    """Return the sequences without each user's oldest item, keeping rows of one item as they are.

    Source: the released AlignDiff data loader builds its test inputs this way.
    """
    keep = np.ones(len(sequences.items), dtype=bool)
    longer = sequences.lengths > 1
    keep[sequences.offsets[:-1][longer]] = False
    lengths = sequences.lengths - longer
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(sequences.items[keep], offsets, sequences.num_items)


def leave_one_out(sequences: Sequences, *, dataset: str = "unnamed", user_labels: list[str] | None = None) -> Split:
    """Split each user's sequence into training part, validation target and test target.

    Raises ValueError if a user has fewer than three items, and names the first: by its row, or by its id in the file
    where user_labels tells it.
    """
    short = np.flatnonzero(sequences.lengths < MIN_LENGTH)
    if len(short):
        first = repr(user_labels[short[0]]) if user_labels else str(short[0] + 1)
        raise ValueError(
            f"{dataset}: {len(short)} user(s) have fewer than {MIN_LENGTH} items, first is user "
            f"{first} with {sequences.lengths[short[0]]}; raise filter.min_user to at least {MIN_LENGTH}"
        )
    ends = sequences.offsets[1:]
    keep = np.ones(len(sequences.items), dtype=bool)
    keep[ends - 1] = False
    keep[ends - 2] = False
    offsets = sequences.offsets - 2 * np.arange(sequences.num_users + 1)
    train = Sequences(sequences.items[keep], offsets, sequences.num_items)
    return Split(dataset, train, sequences.items[ends - 2], sequences.items[ends - 1], sha256=sequences.sha256)
