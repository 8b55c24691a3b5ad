"""Histories of unequal length side by side in one flat tensor, so that padding costs next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


def key_mask(history_BL: Tensor) -> Tensor:
    """Which keys may be read: real items.  [B, L] -> bool [B, 1, 1, L]"""
    return (history_BL > 0)[:, None, None, :]


class Packing:
    """Where the tokens of a batch lie in a flat [N, D] tensor.

    Rows of similar length form a group; a group of R rows, trimmed to its longest row of W items, is a block of R * W
    tokens, and blocks follow one another. What treats tokens one by one (linear layers, LayerNorm, dropout) runs once
    on the flat tensor; only attention looks at one group after the other. One group with the whole batch is the usual
    padded tensor: the plain path.

    histories: item ids of each group, [R, W], left-padded with 0
    """

    def __init__(self, histories: Sequence[Tensor]) -> None:
        self.histories = tuple(histories)
        self._rows = [len(history_RW) for history_RW in self.histories]
        self._sizes = [history_RW.numel() for history_RW in self.histories]

    @cached_property
    def item_N(self) -> Tensor:
        """Item id of each token, 0 where it is padding."""
        return torch.cat([history_RW.flatten() for history_RW in self.histories])

    @cached_property
    def _width_B(self) -> Tensor:
        return torch.cat([torch.full((len(h),), h.shape[1], device=h.device) for h in self.histories])

    @cached_property
    def first_B(self) -> Tensor:
        """Token at the left end of each row, padding or not."""
        return self._width_B.cumsum(0) - self._width_B

    @cached_property
    def last_B(self) -> Tensor:
        """Token of each row's newest item."""
        return self._width_B.cumsum(0) - 1

    @cached_property
    def row_N(self) -> Tensor:
        """Row of the batch that each token belongs to."""
        row_B = torch.arange(sum(self._rows), device=self._width_B.device)
        return torch.repeat_interleave(row_B, self._width_B, output_size=sum(self._sizes))

    @cached_property
    def age_N(self) -> Tensor:
        """Place of each token in its row counted from the newest item, which has 0."""
        return self.last_B[self.row_N] - torch.arange(len(self.row_N), device=self.row_N.device)

    @cached_property
    def key_masks(self) -> list[Tensor | None]:
        """Which keys each group may read: real items.  [R, 1, 1, W], or None where nothing is padding."""
        masks = [key_mask(history_RW) for history_RW in self.histories]
        # A look at the values would make a GPU wait.
        return [None if mask.is_cpu and bool(mask.all()) else mask for mask in masks]

    def spread(self, x_BD: Tensor) -> Tensor:
        """Each row's vector at every token of that row.  [B, D] -> [N, D]"""
        return x_BD.index_select(0, self.row_N)

    def blocks(self, x_ND: Tensor) -> list[Tensor]:
        """[N, D] -> one [R, W, D] per group"""
        parts = zip(x_ND.split(self._sizes), self.histories, strict=True)
        return [part.unflatten(0, history_RW.shape) for part, history_RW in parts]

    def rows(self, x_BD: Tensor) -> list[Tensor]:
        """One query per row.  [B, D] -> one [R, 1, D] per group"""
        return [part[:, None] for part in x_BD.split(self._rows)]

    def padded(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """One left-padded tensor for all rows, and where it holds real items.  -> bool [B, L], [B, L, D]"""
        width = max(history_RW.shape[1] for history_RW in self.histories)
        real = [F.pad(h > 0, (width - h.shape[1], 0)) for h in self.histories]
        x = [F.pad(block, (0, 0, width - block.shape[1], 0)) for block in self.blocks(x_ND)]
        return torch.cat(real), torch.cat(x)

    def repeated(self, times: int) -> Packing:
        """`times` batches like this one, one after the other."""
        return Packing(self.histories * times)
