"""Transformer parts: each fast way gives the numbers of the plain one."""

import math

import pytest
import torch
import torch.nn.functional as F

from harness import layers
from harness.layers import (
    Dropout,
    FeedForward,
    MultiHeadAttention,
    PreNormBlock,
    attend,
    causal_key_mask,
    last_hidden,
    merge_heads,
    project,
    sinusoidal,
    split_heads,
    token_weights,
    weigh_tokens,
)
from harness.packing import Packing, key_mask


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation_and_its_rate(monkeypatch, plain, p):
    monkeypatch.setattr(Dropout, "plain", plain)
    y = Dropout(p)(torch.ones(1_000_003))
    assert float((y > 0).float().mean()) == pytest.approx(1 - p, abs=3e-3)
    assert float(y.mean()) == pytest.approx(1, abs=1e-2)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)


@pytest.mark.parametrize("p", [1e-7, 1e-5])
def test_dropout_of_almost_nothing_keeps_almost_everything(p):
    y = Dropout(p)(torch.ones(100_000))
    assert float((y > 0).float().mean()) > 0.999
    assert float(y.mean()) == pytest.approx(1, abs=1e-3)


def test_dropout_of_almost_everything_is_finite():
    assert torch.isfinite(Dropout(1 - 1e-9)(torch.ones(1000))).all()


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_dropout_rates_out_of_range_are_refused(p):
    with pytest.raises(ValueError, match="dropout: .* legal values are 0 up to but not including 1"):
        Dropout(p)


def test_dropout_masks_are_independent_across_elements_and_calls():
    """Four masks are cut from one 64-bit draw: neighbours at every small distance must not agree too often."""
    layer = Dropout(0.5)
    kept, again = (layer(torch.ones(400_000)) > 0 for _ in range(2))
    for shift in (1, 2, 3, 4, 5, 8):
        agreement = float((kept[shift:] == kept[:-shift]).float().mean())
        assert agreement == pytest.approx(0.5, abs=5e-3), shift
    assert float((kept == again).float().mean()) == pytest.approx(0.5, abs=5e-3)


def test_dropout_is_off_in_evaluation_and_at_rate_zero():
    x = torch.randn(7, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_dropout_gradient_uses_the_same_mask():
    x = torch.ones(1001, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_obeys_the_global_seed():
    x = torch.ones(50)
    torch.manual_seed(3)
    first = Dropout(0.5)(x)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(x), first)


HISTORY = torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4], [0, 0, 0, 9]])


def test_masks_by_hand():
    assert key_mask(HISTORY)[0, 0].tolist() == [[False, False, True, True]]
    mask = causal_key_mask(HISTORY)[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert torch.equal(causal_key_mask(HISTORY)[1, 0], torch.ones(4, 4, dtype=torch.bool).tril())


def naive_attention(q, k, v, mask):
    """One head of one sample at a time, one query at a time."""
    result = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                keys = [j for j in range(k.shape[2]) if mask is None or mask[b, 0, min(i, mask.shape[2] - 1), j]]
                logits = torch.stack([q[b, h, i] @ k[b, h, j] / math.sqrt(q.shape[-1]) for j in keys])
                result[b, h, i] = sum(w * v[b, h, j] for w, j in zip(logits.softmax(0), keys, strict=True))
    return result


@pytest.mark.parametrize("mask", [None, key_mask(HISTORY), causal_key_mask(HISTORY)], ids=["none", "keys", "causal"])
def test_attention_equals_the_definition_by_both_ways(monkeypatch, mask):
    q, k, v = (torch.randn(3, 2, 4, 5) for _ in range(3))
    expected = naive_attention(q, k, v, mask)
    fused = attend(q, k, v, mask, Dropout(0.0))
    close(fused, expected)
    close(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), expected)
    drawing = Dropout(0.5)
    monkeypatch.setattr(drawing, "forward", lambda weights: weights)  # takes the explicit way, drops nothing
    close(attend(q, k, v, mask, drawing), expected)


def test_attention_token_by_token_equals_the_definition():
    groups = Packing([torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 4, 5, 6]])])
    q_BD, k_ND, v_ND = torch.randn(3, 6), torch.randn(8, 6), torch.randn(8, 6)
    found_BD = groups.total(weigh_tokens(token_weights(q_BD, k_ND, groups, 2, math.sqrt(3)), v_ND))
    (real_BL, k_BLD), (_, v_BLD) = groups.padded(k_ND), groups.padded(v_ND)
    heads = (split_heads(x, 2) for x in (q_BD[:, None], k_BLD, v_BLD))
    close(found_BD, merge_heads(naive_attention(*heads, real_BL[:, None, None]))[:, 0])


def test_attention_drops_weights_only_in_training():
    q, k, v = (torch.randn(1, 1, 4, 5) for _ in range(3))
    layer = Dropout(0.5)
    assert not torch.allclose(attend(q, k, v, None, layer), naive_attention(q, k, v, None))
    close(attend(q, k, v, None, layer.eval()), naive_attention(q, k, v, None))


def test_heads_split_and_merge():
    x = torch.arange(2 * 3 * 6).view(2, 3, 6)
    heads = split_heads(x, 2)
    assert heads.shape == (2, 2, 3, 3)
    assert heads[0, 1, 2].tolist() == x[0, 2, 3:].tolist()
    assert torch.equal(merge_heads(heads), x)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads: 3 does not divide the width 8"):
        MultiHeadAttention(8, 3, 0.0)


def test_attention_agrees_with_torchs_own_layer():
    ours, theirs = MultiHeadAttention(8, 2, 0.0), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    x = torch.randn(3, 4, 8)
    expected = theirs(x, x, x, key_padding_mask=HISTORY == 0, need_weights=False)[0]
    close(ours(x, x, key_mask(HISTORY)), expected)


def test_padded_queries_attend_uniformly():
    layer, x = MultiHeadAttention(8, 2, 0.0), torch.randn(3, 4, 8)
    found = layer.packed(x.flatten(0, 1), Packing([HISTORY]), "queries").view_as(x)
    uniform = layer.output(layer.value(x).mean(1, keepdim=True)).expand_as(x)
    close(found, torch.where((HISTORY > 0)[..., None], layer(x, x, None), uniform))


def test_projections_share_one_product():
    x, layers = torch.randn(3, 8), [torch.nn.Linear(8, 8) for _ in range(3)]
    for found, layer in zip(project(x, *layers), layers, strict=True):
        close(found, layer(x))


def test_packed_attention_equals_the_padded_one():
    layer, x = MultiHeadAttention(8, 2, 0.0), torch.randn(3, 4, 8)
    found = layer.packed(x.flatten(0, 1), Packing([HISTORY]), "keys").view_as(x)
    close(found, layer(x, x, key_mask(HISTORY)))


@pytest.mark.parametrize("padding", ["keys", "queries"])
def test_last_only_equals_the_last_position_of_the_full_pass(padding):
    block, x, packing = PreNormBlock(8, 2, 0.3).eval(), torch.randn(12, 8), Packing([HISTORY])
    last = block(x, packing, padding, last_only=True)
    assert last.shape == (3, 8)
    close(last, block(x, packing, padding)[[3, 7, 11]])


def test_last_hidden_runs_all_blocks():
    blocks = torch.nn.ModuleList(PreNormBlock(8, 2, 0.0) for _ in range(3))
    x, packing = torch.randn(12, 8), Packing([HISTORY])
    expected = x
    for block in blocks:
        expected = block(expected, packing, "keys")
    close(last_hidden(blocks, x, packing, "keys"), expected[[3, 7, 11]])


def test_groups_of_similar_length_equal_one_padded_group():
    block = PreNormBlock(8, 2, 0.0).eval()
    rows = HISTORY[[2, 0, 1]]
    whole, groups = Packing([rows]), Packing([rows[:1, -1:], rows[1:2, -2:], rows[2:]])
    items = torch.randn(10, 8)
    close(
        block(items[groups.item_N], groups, "keys", last_only=True),
        block(items[whole.item_N], whole, "keys", last_only=True),
    )


def test_padding_is_read_only_where_queries_are_masked():
    block, packing = PreNormBlock(8, 2, 0.0).eval(), Packing([HISTORY])
    x = torch.randn(12, 8)
    moved = torch.where((packing.item_N == 0)[:, None], x + 5 * torch.randn(12, 8), x)
    for padding, same in (("keys", True), ("queries", False)):
        before, after = (block(each, packing, padding, last_only=True) for each in (x, moved))
        assert torch.allclose(before[[0, 2]], after[[0, 2]], atol=1e-5) == same


def test_a_block_is_pre_norm_with_two_residuals():
    block, x = PreNormBlock(8, 2, 0.0), torch.randn(3, 4, 8)
    middle = x + block.attention(F.layer_norm(x, (8,)), F.layer_norm(x, (8,)), key_mask(HISTORY))
    expected = middle + block.feed_forward(F.layer_norm(middle, (8,)))
    close(block(x.flatten(0, 1), Packing([HISTORY]), "keys").view_as(x), expected)


def test_a_block_draws_its_last_dropout_over_residual_and_branch_alike():
    """DiffuRec's extra dropout: whole outputs are zeroed, which residual dropouts alone would not do."""
    y = PreNormBlock(64, 2, 0.5)(torch.randn(8 * 16, 64), Packing([torch.ones(8, 16)]), "keys")
    assert float((y == 0).float().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_feed_forward_by_hand(approximate):
    layer = FeedForward(4, 12, 0.0, approximate)
    x = torch.randn(3, 4)
    inner = x @ layer.inner.weight.T + layer.inner.bias
    if approximate == "none":
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    else:
        inner = inner * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
    close(layer(x), inner @ layer.outer.weight.T + layer.outer.bias)


@pytest.mark.parametrize("approximate", ["tanh", "none"])
@pytest.mark.parametrize("shape", [(64, 16), (3, 7, 16)])
def test_feed_forward_in_bf16_without_gradients_equals_the_plain_way(approximate, shape):
    """Where the processor multiplies bf16, GELU is fused into the product: one rounding less, so not the same bits."""
    layer, x = FeedForward(16, 64, 0.0, approximate), torch.randn(shape)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = layer(x)
        with torch.no_grad():
            found = layer(x)
    assert found.dtype == plain.dtype == torch.bfloat16 and found.shape == plain.shape
    error, allowed = ((way.float() - exact).norm() / exact.norm() for way in (found, plain))
    assert error < 1.2 * allowed < 0.01


def test_attention_of_bf16_tensors_is_computed_in_fp32():
    q, k, v = (torch.randn(3, 2, 4, 5).bfloat16() for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attend(q, k, v, key_mask(HISTORY), Dropout(0.0))
    assert torch.equal(found, attend(q.float(), k.float(), v.float(), key_mask(HISTORY), Dropout(0.0)))


def test_sinusoidal_values():
    found = sinusoidal(torch.tensor([0.0, 31.25]), 128)
    assert found.shape == (2, 128)
    assert found[0].tolist() == [1.0] * 64 + [0.0] * 64
    for i in (0, 1, 40, 63):
        angle = 31.25 * 10000 ** (-i / 64)
        assert float(found[1, i]) == pytest.approx(math.cos(angle), abs=1e-5)
        assert float(found[1, 64 + i]) == pytest.approx(math.sin(angle), abs=1e-5)


def test_every_public_part_is_tested_here():
    public = {name for name, value in vars(layers).items() if getattr(value, "__module__", "") == "harness.layers"}
    assert {name for name in public if not name.startswith("_")} <= set(globals())
