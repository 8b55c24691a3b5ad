"""Where rows go, by hand, and that attention in tiles is attention in padded rows."""

import pytest
import torch

from harness.layers import MultiHeadAttention
from harness.packing import Packing
from harness.tiles import COUNT_UNIT, TOKEN_UNIT, WIDTH_UNIT, fill, tiled

LENGTHS = [*range(1, 40), 3, 3, 3, 17, 50]


def histories(lengths):
    """Rows of the given lengths, no item twice, left-padded."""
    item = iter(range(1, 10000))
    rows = [[0] * (max(lengths) - length) + [next(item) for _ in range(length)] for length in lengths]
    return torch.tensor(rows), torch.tensor(lengths)


def test_rows_go_where_they_leave_the_least_room():
    tiles = fill([2, 14, 3, 16, 20])
    assert {width: [tile for tile in rows if tile] for width, rows in tiles.items()} == {
        16: [[3], [1, 0]],
        24: [[4, 2]],
    }


@pytest.mark.parametrize("lengths", [[1], [5, 2], LENGTHS, [50] * 3])
def test_shapes_come_in_units_and_hold_every_row_once(lengths):
    tiles = fill(lengths)
    assert sorted(row for rows in tiles.values() for tile in rows for row in tile) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in tile) <= width for width, rows in tiles.items() for tile in rows)
    assert sum(width * len(rows) for width, rows in tiles.items()) % TOKEN_UNIT == 0
    assert all(width % WIDTH_UNIT == 0 for width in tiles)
    assert all(len(rows) % COUNT_UNIT == 0 for width, rows in tiles.items() if width > min(tiles))


def test_tokens_are_the_histories():
    history_BL, length_B = histories(LENGTHS)
    packing = tiled(history_BL, length_B)
    real_BL, item_BL1 = packing.padded(packing.item_N[:, None])
    assert torch.equal(item_BL1[..., 0], history_BL) and torch.equal(real_BL, history_BL > 0)
    assert torch.equal(packing.item_N[packing.last_B], history_BL[:, -1])
    real_N = packing.item_N > 0
    assert (packing.age_N[real_N] < length_B[packing.row_N[real_N]]).all()


@pytest.mark.parametrize("last_only", [False, True])
def test_attention_in_tiles_is_attention_in_padded_rows(last_only):
    history_BL, length_B = histories(LENGTHS)
    tiles, plain = tiled(history_BL, length_B), Packing([history_BL])
    torch.manual_seed(0)
    layer, table = MultiHeadAttention(16, 2, 0.0), torch.randn(int(history_BL.max()) + 1, 16)
    found, expected = (
        layer.packed(table[packing.item_N], packing, "keys", last_only=last_only) for packing in (tiles, plain)
    )
    if not last_only:
        found, expected = (part.padded(x)[1] for part, x in ((tiles, found), (plain, expected)))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
