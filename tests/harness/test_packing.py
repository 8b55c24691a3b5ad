"""Where tokens lie, by hand, and that taking a batch apart and joining it gives the batch."""

import torch

from harness.packing import Packing

GROUPS = [torch.tensor([[5], [6]]), torch.tensor([[0, 7, 8], [1, 2, 3]])]
PACKING = Packing(GROUPS)


def test_tokens_by_hand():
    assert PACKING.item_N.tolist() == [5, 6, 0, 7, 8, 1, 2, 3]
    assert PACKING.row_N.tolist() == [0, 1, 2, 2, 2, 3, 3, 3]
    assert PACKING.age_N.tolist() == [0, 0, 2, 1, 0, 2, 1, 0]
    assert PACKING.first_B.tolist() == [0, 1, 2, 5]
    assert PACKING.last_B.tolist() == [0, 1, 4, 7]


def test_masks_only_where_there_is_padding():
    none, some = PACKING.key_masks
    assert none is None
    assert some[:, 0, 0].tolist() == [[False, True, True], [True, True, True]]


def test_blocks_and_rows_keep_the_order():
    blocks = PACKING.blocks(PACKING.item_N[:, None])
    assert [block[..., 0].tolist() for block in blocks] == [group.tolist() for group in GROUPS]
    assert [part[:, 0, 0].tolist() for part in PACKING.rows(torch.arange(4.0)[:, None])] == [[0, 1], [2, 3]]


def test_spread_gives_each_token_its_rows_vector():
    x_BD = torch.randn(4, 3)
    assert torch.equal(PACKING.spread(x_BD), x_BD[PACKING.row_N])


def test_softmax_and_total_of_each_row_by_hand():
    logits_NH = torch.tensor([[0.0], [7.0], [90.0], [1.0], [1.0], [200.0], [200.0], [-torch.inf]])
    weight_NH = PACKING.softmax(logits_NH)
    assert weight_NH[:, 0].tolist() == [1, 1, 0, 0.5, 0.5, 0.5, 0.5, 0]
    assert PACKING.total(weight_NH * PACKING.item_N[:, None])[:, 0].tolist() == [5, 6, 7.5, 1.5]


def test_padded_is_one_left_padded_tensor():
    real_BL, x_BLD = PACKING.padded(PACKING.item_N[:, None])
    assert x_BLD[..., 0].tolist() == [[0, 0, 5], [0, 0, 6], [0, 7, 8], [1, 2, 3]]
    assert torch.equal(real_BL, x_BLD[..., 0] > 0)


def test_repeated_packs_the_batch_again_behind_itself():
    twice = PACKING.repeated(2)
    assert twice.item_N.tolist() == PACKING.item_N.tolist() * 2
    assert twice.last_B.tolist() == [*PACKING.last_B.tolist(), *(PACKING.last_B + 8).tolist()]
