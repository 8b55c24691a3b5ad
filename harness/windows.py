"""Histories on the device: item windows gathered by index, no Python per sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.packing import Packing
from harness.split import Sequences
from harness.tiles import tiled


@dataclass(frozen=True)
class ResidentSequences:
    """Sequences as flat tensors on the device.

    items_N: int64 [N]; offsets_U: int64 [U + 1]
    """

    items_N: Tensor
    offsets_U: Tensor
    num_items: int

    @classmethod
    def of(cls, sequences: Sequences, device: torch.device | str = "cpu") -> ResidentSequences:
        items = torch.from_numpy(sequences.items.astype("int64")).to(device)
        offsets = torch.from_numpy(sequences.offsets.astype("int64")).to(device)
        return cls(items, offsets, sequences.num_items)

    @property
    def lengths_U(self) -> Tensor:
        return self.offsets_U.diff()

    def window(self, start_B: Tensor, end_B: Tensor, width: int) -> Tensor:
        """The last `width` items of items_N[start:end], left-padded with 0.  [B], [B] -> [B, width]"""
        index_BL = end_B[:, None] + torch.arange(-width, 0, device=end_B.device)
        return self.items_N[index_BL.clamp(min=0)] * (index_BL >= start_B[:, None])

    def histories(self, user_B: Tensor, max_len: int) -> Tensor:
        """Last items of whole users, left-padded to the longest among them, at most `max_len`."""
        start_B, end_B = self.offsets_U[user_B], self.offsets_U[user_B + 1]
        width = int((end_B - start_B).max().clamp(max=max_len))
        return self.window(start_B, end_B, width)


def _require_samples(count: int) -> None:
    if count == 0:
        raise ValueError("no user has more than one training item, so there is nothing to learn from; give longer data")


def length_slices(length_B: Tensor, count: int) -> Iterator[tuple[slice, int]]:
    """Rows sorted by length in at most `count` groups, each with the length of its longest row.

    Encoding group by group, each trimmed to its own width, is the same mathematics with less padding. The groups are
    those with the least padding of all: most histories are short, so equal groups would waste much on the long ones.
    """
    width_W, rows_W = np.unique(length_B.cpu().numpy(), return_counts=True)
    width_W, end_W = np.append(0, width_W), np.append(0, rows_W.cumsum())
    # Tokens of one group, padding included, that holds the widths after the i-th up to the j-th.
    tokens_WW = np.where(np.tri(len(end_W), dtype=bool), np.inf, width_W * (end_W - end_W[:, None]))
    least_W, cut_before = np.where(end_W > 0, np.inf, 0.0), []
    for _ in range(min(count, len(rows_W))):
        total_WW = least_W[:, None] + tokens_WW
        cut_before.append(total_WW.argmin(0))
        least_W = total_WW.min(0)
    cuts = [len(rows_W)]
    for best_W in reversed(cut_before):
        cuts.append(best_W[cuts[-1]])
    for begin, end in itertools.pairwise(reversed(cuts)):
        yield slice(int(end_W[begin]), int(end_W[end])), int(width_W[end])


@dataclass(frozen=True)
class PrefixBatch:
    """Training samples "history -> next item", longest history last.

    history_BL: left-padded to the longest history of the batch (or to max_len if not trimmed)
    length_B:   items in the window; target_B: next item; user_B: row of the user
    """

    history_BL: Tensor
    length_B: Tensor
    target_B: Tensor
    user_B: Tensor

    def slices(self, count: int) -> Iterator[tuple[slice, Tensor]]:
        """Rows in at most `count` groups of similar length, each with its trimmed history; 1 leaves all as it is."""
        if count == 1:
            yield slice(0, len(self.target_B)), self.history_BL
            return
        for rows, width in length_slices(self.length_B, count):
            yield rows, self.history_BL[rows, -width:]

    def packed(self, count: int | None) -> Packing:
        """The histories packed in at most `count` groups of similar length; in tiles if `count` is None."""
        if count is None:
            return tiled(self.history_BL, self.length_B)
        return Packing([history_RW for _, history_RW in self.slices(count)])


class PrefixSampler:
    """Every prefix with at least one history item, in a fresh random order each epoch.

    A user with n training items gives n - 1 samples; histories keep the last `max_len` items.
    """

    def __init__(self, data: ResidentSequences, *, max_len: int, batch_size: int, trim: bool = True) -> None:
        self._data, self._max_len, self._batch_size, self._trim = data, max_len, batch_size, trim
        device = data.items_N.device
        user_N = torch.repeat_interleave(torch.arange(len(data.lengths_U), device=device), data.lengths_U)
        position_N = torch.arange(len(data.items_N), device=device)
        has_history_N = position_N > data.offsets_U[user_N]
        self._end_S, self._user_S = position_N[has_history_N], user_N[has_history_N]
        _require_samples(self.num_samples)

    @property
    def num_samples(self) -> int:
        return len(self._end_S)

    @property
    def num_batches(self) -> int:
        return -(-self.num_samples // self._batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[PrefixBatch]:
        """Yield all samples once, in batches drawn uniformly without replacement."""
        order = torch.randperm(self.num_samples, generator=generator, device=generator.device)
        for chosen in order.to(self._end_S.device).split(self._batch_size):
            yield self.batch(chosen)

    def batch(self, chosen_B: Tensor) -> PrefixBatch:
        """Gather the samples with these indices, sorted by history length."""
        end_B, user_B = self._end_S[chosen_B], self._user_S[chosen_B]
        start_B = self._data.offsets_U[user_B]
        length_B, order = (end_B - start_B).clamp(max=self._max_len).sort(stable=True)
        start_B, end_B = start_B[order], end_B[order]
        width = int(length_B[-1]) if self._trim else self._max_len
        history_BL = self._data.window(start_B, end_B, width)
        return PrefixBatch(history_BL, length_B, self._data.items_N[end_B], user_B[order])


@dataclass(frozen=True)
class SequenceBatch:
    """Whole training sequences for causal models: input and, one step later, target at each position.

    Both [B, L], left-padded with 0 to the longest piece of the batch, longest piece last; target is 0 exactly where
    input is 0.
    """

    input_BL: Tensor
    target_BL: Tensor
    user_B: Tensor

    def slices(self, count: int) -> Iterator[SequenceBatch]:
        """The batch in at most `count` groups of similar length, each trimmed; 1 leaves it as it is."""
        if count == 1:
            yield self
            return
        for rows, width in length_slices((self.input_BL > 0).sum(1), count):
            yield SequenceBatch(self.input_BL[rows, -width:], self.target_BL[rows, -width:], self.user_B[rows])


class SequenceSampler:
    """Users' training sequences as pieces of at most max_len + 1 items, in random order each epoch.

    pieces "last" keeps one piece per user, the most recent (the authors' choice for SASRec); "all" cuts a long
    sequence into pieces from the end backwards, each overlapping the next by one item, so that every next-item
    target of the training part is used exactly once.
    """

    def __init__(
        self,
        data: ResidentSequences,
        *,
        max_len: int,
        batch_size: int,
        pieces: str = "all",
        trim: bool = True,
    ) -> None:
        if pieces not in ("all", "last"):
            raise ValueError(f"pieces: {pieces!r} is not one of 'all', 'last'")
        self._data, self._max_len, self._batch_size, self._trim = data, max_len, batch_size, trim
        self._start_S, self._end_S, self._user_S = self._cut(data, max_len, pieces)
        _require_samples(self.num_samples)

    @staticmethod
    def _cut(data: ResidentSequences, max_len: int, pieces: str) -> tuple[Tensor, Tensor, Tensor]:
        """Start and end of each piece's inputs in items_N; its targets lie one further."""
        targets_U = data.lengths_U - 1
        count_U = -(-targets_U // max_len) if pieces == "all" else targets_U.clamp(max=1)
        user_S = torch.repeat_interleave(torch.arange(len(count_U), device=count_U.device), count_U)
        first_S = torch.repeat_interleave(count_U.cumsum(0) - count_U, count_U)
        back_S = torch.arange(len(user_S), device=count_U.device) - first_S
        end_S = data.offsets_U[user_S + 1] - 1 - back_S * max_len
        start_S = torch.maximum(data.offsets_U[user_S], end_S - max_len)
        return start_S, end_S, user_S

    @property
    def num_samples(self) -> int:
        return len(self._user_S)

    def epoch(self, generator: torch.Generator) -> Iterator[SequenceBatch]:
        order = torch.randperm(self.num_samples, generator=generator, device=generator.device)
        for chosen in order.to(self._user_S.device).split(self._batch_size):
            yield self.batch(chosen)

    def batch(self, chosen_B: Tensor) -> SequenceBatch:
        """Gather the pieces with these indices, sorted by length."""
        length_B, order = (self._end_S[chosen_B] - self._start_S[chosen_B]).sort(stable=True)
        chosen_B = chosen_B[order]
        start_B, end_B = self._start_S[chosen_B], self._end_S[chosen_B]
        width = int(length_B[-1]) if self._trim else self._max_len
        input_BL = self._data.window(start_B, end_B, width)
        target_BL = self._data.window(start_B + 1, end_B + 1, width)
        return SequenceBatch(input_BL, target_BL, self._user_S[chosen_B])


def pad_left(history_BL: Tensor, width: int) -> Tensor:
    """Bring histories to exactly `width` columns: pad on the left, or keep the last ones."""
    missing = width - history_BL.shape[1]
    return torch.nn.functional.pad(history_BL, (missing, 0)) if missing >= 0 else history_BL[:, -width:]


def align_left(history_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Move left-padding to the right; return the rows and their lengths.  [B, L] -> [B, L], [B]"""
    length_B = (history_BL > 0).sum(1)
    index_BL = torch.arange(history_BL.shape[1], device=history_BL.device) - length_B[:, None]
    return history_BL.gather(1, index_BL % history_BL.shape[1]), length_B
