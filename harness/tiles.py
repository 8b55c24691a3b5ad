"""Histories side by side in tiles, so that the products of one batch have the shapes of the next.

oneDNN builds a kernel for every shape that it has not met lately. Groups cut to the lengths of their rows hardly ever
repeat a shape; tiles come in a few widths, counts and totals, and attention needs a few large products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.packing import Packing

WIDTHS = (16, 32)  # tokens of a tile, for rows that fit in; longer rows share tiles as wide as the longest, rounded up
WIDTH_UNIT = 8
COUNT_UNIT = 4  # tiles of each width come in multiples of this ...
TOKEN_UNIT = 128  # ... and further tiles of the least width bring all tokens to a multiple of this

Tiles = dict[int, list[list[int]]]  # by width: the rows in each tile


def tiled(history_BL: Tensor, length_B: Tensor) -> Packing:
    """Left-padded histories packed in tiles; what is left over is padding.  [B, L], [B]"""
    lengths = length_B.tolist()
    tiles = fill(lengths)
    parts = [_tokens(rows, width, lengths) for width, rows in tiles.items()]
    row_N, age_N = (torch.from_numpy(np.concatenate(part)).to(history_BL.device) for part in zip(*parts, strict=True))
    real_N, row_N = row_N >= 0, row_N.clamp(min=0)
    item_N = history_BL[row_N, history_BL.shape[1] - 1 - age_N] * real_N
    groups = item_N.split([width * len(rows) for width, rows in tiles.items()])
    histories = [item.view(-1, width) for item, width in zip(groups, tiles, strict=True)]
    return Packing(histories, places=(row_N, age_N))


def fill(lengths: Sequence[int]) -> Tiles:
    """Each row goes where it leaves the least room, the longest first; empty tiles bring the counts to their units."""
    widest = -(-max(lengths) // WIDTH_UNIT) * WIDTH_UNIT
    tiles: Tiles = {width: [] for width in (*(width for width in WIDTHS if width < widest), widest)}
    open_by_room: list[list[list[int]]] = [[] for _ in range(widest + 1)]
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        room = next((room for room in range(lengths[row], widest + 1) if open_by_room[room]), None)
        if room is None:
            room, tile = next(width for width in tiles if width >= lengths[row]), []
            tiles[room].append(tile)
        else:
            tile = open_by_room[room].pop()
        tile.append(row)
        open_by_room[room - lengths[row]].append(tile)
    for rows in tiles.values():
        rows.extend([] for _ in range(-len(rows) % COUNT_UNIT))
    while sum(width * len(rows) for width, rows in tiles.items()) % TOKEN_UNIT:
        tiles[min(tiles)].append([])
    return {width: rows for width, rows in tiles.items() if rows}


def _tokens(tiles: list[list[int]], width: int, lengths: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of each token of these tiles and its age; -1 and 0 where a tile is left empty, which is at its beginning."""
    rows, counts = [], []
    for tile in tiles:
        taken = [lengths[row] for row in tile]
        rows += [-1, *tile]
        counts += [width - sum(taken), *taken]
    row_N = np.repeat(rows, counts)
    age_N = np.cumsum(counts).repeat(counts) - 1 - np.arange(len(row_N))
    return row_N, np.where(row_N < 0, 0, age_N)
