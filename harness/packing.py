"""Histories of unequal length side by side in one flat tensor, so that padding costs next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
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

    A group may also be made of tiles, W tokens wide and filled by several rows each (see `harness.tiles`). Rows then
    read their own tokens of the tile only.

    histories: item ids of each group, [R, W], 0 where there is none; of groups of rows left-padded
    places:    of tiles: row and age of each token (see `row_N`, `age_N`); of padding any, as nobody reads it
    """

    def __init__(self, histories: Sequence[Tensor], places: tuple[Tensor, Tensor] | None = None) -> None:
        self.histories = tuple(histories)
        self._rows = [len(history_RW) for history_RW in self.histories]
        self._sizes = [history_RW.numel() for history_RW in self.histories]
        self._places = places

    @property
    def tiled(self) -> bool:
        return self._places is not None

    @cached_property
    def item_N(self) -> Tensor:
        """Item id of each token, 0 where it is padding."""
        return torch.cat([history_RW.flatten() for history_RW in self.histories])

    @cached_property
    def _width_B(self) -> Tensor:
        return torch.cat([torch.full((len(h),), h.shape[1], device=h.device) for h in self.histories])

    @cached_property
    def first_B(self) -> Tensor:
        """Token at the left end of each row, padding or not. Not for tiles, whose rows own no padding."""
        assert not self.tiled
        return self._width_B.cumsum(0) - self._width_B

    @cached_property
    def last_B(self) -> Tensor:
        """Token of each row's newest item."""
        if self._places is None:
            return self._width_B.cumsum(0) - 1
        row_N, age_N = self._places
        newest_B = ((age_N == 0) & (self.item_N > 0)).nonzero()[:, 0]
        return torch.empty_like(newest_B).scatter_(0, row_N[newest_B], newest_B)

    @cached_property
    def row_N(self) -> Tensor:
        """Row of the batch that each token belongs to."""
        if self._places is not None:
            return self._places[0]
        row_B = torch.arange(sum(self._rows), device=self._width_B.device)
        return torch.repeat_interleave(row_B, self._width_B, output_size=sum(self._sizes))

    @cached_property
    def age_N(self) -> Tensor:
        """Place of each token in its row counted from the newest item, which has 0."""
        if self._places is not None:
            return self._places[1]
        return self.last_B[self.row_N] - torch.arange(len(self.row_N), device=self.row_N.device)

    @cached_property
    def key_masks(self) -> list[Tensor | None]:
        """Which keys each group may read: real items of the same row.

        [R, 1, 1, W], or None where nothing is padding; of tiles [R, 1, W, W].
        """
        masks = [key_mask(history_RW) for history_RW in self.histories]
        if self.tiled:
            return [self._in_tiles(*pair) for pair in zip(self.row_N.split(self._sizes), masks, strict=True)]
        # A look at the values would make a GPU wait.
        return [None if mask.is_cpu and bool(mask.all()) else mask for mask in masks]

    @staticmethod
    def _in_tiles(row_N: Tensor, real_R11W: Tensor) -> Tensor:
        """Real items of the own row; and oneself, so that padding reads something.  [R, 1, W, W]"""
        width = real_R11W.shape[-1]
        row_RW = row_N.view(-1, width)
        own = (row_RW[:, None, :, None] == row_RW[:, None, None, :]) & real_R11W
        return own | torch.eye(width, dtype=torch.bool, device=row_N.device)

    def spread(self, x_BD: Tensor) -> Tensor:
        """Each row's vector at every token of that row.  [B, D] -> [N, D]"""
        return x_BD.index_select(0, self.row_N)

    def blocks(self, x_ND: Tensor) -> list[Tensor]:
        """[N, D] -> one [R, W, D] per group"""
        parts = zip(x_ND.split(self._sizes), self.histories, strict=True)
        return [part.unflatten(0, history_RW.shape) for part, history_RW in parts]

    def rows(self, x_BD: Tensor) -> list[Tensor]:
        """One query per row.  [B, D] -> one [R, 1, D] per group. Not for tiles: see `softmax` and `total`."""
        assert not self.tiled
        return [part[:, None] for part in x_BD.split(self._rows)]

    def softmax(self, logits_NH: Tensor) -> Tensor:
        """Over the real tokens of each row, 0 elsewhere.  [N, H] -> [N, H]"""
        logits_NH = logits_NH.masked_fill((self.item_N == 0)[:, None], -torch.inf)
        row_NH = self.row_N[:, None].expand_as(logits_NH)
        lowest_BH = logits_NH.new_full((len(self.last_B), logits_NH.shape[1]), -torch.inf)
        highest_BH = lowest_BH.scatter_reduce(0, row_NH, logits_NH.detach(), "amax")
        weight_NH = (logits_NH - self.spread(highest_BH)).exp()
        return weight_NH / self.spread(self.total(weight_NH))

    def total(self, x_ND: Tensor) -> Tensor:
        """Sum over the tokens of each row.  [N, D] -> [B, D]"""
        return x_ND.new_zeros(len(self.last_B), x_ND.shape[1]).index_add(0, self.row_N, x_ND)

    def padded(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """One left-padded tensor for all rows, and where it holds real items.  -> bool [B, L], [B, L, D]"""
        real_N = self.item_N > 0
        row_K, age_K = self.row_N[real_N], self.age_N[real_N]
        width = int(age_K.max()) + 1
        real_BL = real_N.new_zeros(len(self.last_B), width)
        x_BLD = x_ND.new_zeros(len(self.last_B), width, x_ND.shape[-1])
        place = row_K, width - 1 - age_K
        return real_BL.index_put(place, real_N[real_N]), x_BLD.index_put(place, x_ND[real_N])

    def repeated(self, times: int) -> Packing:
        """`times` batches like this one, one after the other."""
        assert not self.tiled, "rows of tiles have no order that could be repeated"
        return Packing(self.histories * times)
