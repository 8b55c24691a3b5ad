"""BERT4Rec: masks, windows, attention in both directions, leakage, padding, closed-form losses, overfitting."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines import bert4rec
from harness.compute import Compute
from harness.learner import num_parameters
from harness.split import Sequences, TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences

SMALL = {"embedding_dim": 8, "num_heads": 2, "inner_dim": 16, "max_len": 12, "dropout": 0.0, "attention_dropout": 0.0}
MASK = 21


def build(rows=((1, 2, 3), (4, 5, 6, 7, 8), (9, 2)), num_items=20, **settings):
    rows = [list(row) for row in rows]
    view = TrainingView(Sequences.from_lists(rows, num_items))
    learner = bert4rec.build(SMALL | settings, view, Streams(0), Compute())
    for parameter in learner.module.parameters():  # at std 0.02 a leak would hide below the tolerance
        torch.nn.init.normal_(parameter, std=0.5)
    return learner


def scores(learner, history):
    learner.module.eval()
    with torch.no_grad():
        return learner.score(torch.tensor(history), torch.zeros(len(history)), UserNoise.single(1, 1))


def masks(lengths, *, seed=0, **settings):
    width = max(lengths)
    window_BL = torch.tensor([[0] * (width - n) + list(range(1, n + 1)) for n in lengths])
    config = bert4rec.Config(**SMALL | {"last_only_rate": 0.0} | settings)
    return window_BL, bert4rec.choose_masked(window_BL, config, torch.Generator().manual_seed(seed))


def test_a_later_item_changes_the_query_at_an_earlier_mask():
    module = build().module.eval()
    first, second = (
        module(row, row == MASK) for row in (torch.tensor([[1, MASK, 3, 4]]), torch.tensor([[1, MASK, 3, 5]]))
    )
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_network_is_the_released_one():
    """Post-norm blocks, exact GELU, segment vector and head, written out a head at a time."""
    module = build().module.eval()
    items = torch.tensor([3, 7, MASK, 5])
    norm = lambda x, layer: F.layer_norm(x, (8,), layer.weight, layer.bias, 1e-12)  # noqa: E731
    x = norm(module.items.weight[items] + module.positions.weight[:4] + module.segment, module.norm)
    for block in module.blocks:
        parts = [layer(x) for layer in (block.attention.query, block.attention.key, block.attention.value)]
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            q, k, v = (part[:, head] for part in parts)
            heads.append((q @ k.T / 4**0.5).softmax(-1) @ v)
        x = norm(x + block.attention.output(torch.cat(heads, -1)), block.norm_attention)
        inner = block.feed_forward.inner(x)
        x = norm(x + block.feed_forward.outer(inner * (1 + torch.erf(inner / 2**0.5)) / 2), block.norm_feed_forward)
    top = module.head(x[2])
    expected = norm(top * (1 + torch.erf(top / 2**0.5)) / 2, module.norm_head)
    found = module(items[None], items[None] == MASK)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_dropout_comes_after_the_norm_of_the_input():
    """As in BERT: half of the normalised values are 0, the rest doubled."""
    module, seen = build(dropout=0.5).module.train(), []
    module.blocks[0].attention.query.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module.blocks[0].attention.forward = lambda query, context, mask: seen.append(query) or torch.zeros_like(query)
    module(torch.tensor([[1, 2, 3, MASK]]), torch.tensor([[False, False, False, True]]))
    assert 0 < int((seen[0] == 0).sum()) < seen[0].numel()


def test_scores_are_the_logits_of_the_mask_with_their_bias():
    learner = build()
    learner.module.eval()
    query = learner.module(torch.tensor([[3, 1, MASK]]), torch.tensor([[False, False, True]]))
    expected = query @ learner.module.items.weight.T + learner.module.bias
    torch.testing.assert_close(scores(learner, [[3, 1]]), expected[:, :MASK].detach())


def test_the_item_under_a_mask_is_not_read():
    learner = build(mask_rate=0.5)
    learner.module.eval()
    first, second = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 3, 4, 5, 6]])
    hidden_BL = learner._hide(first, torch.Generator().manual_seed(0)).target_BL > 0
    second[hidden_BL] = 17
    groups = [learner._hide(window_BL, torch.Generator().manual_seed(0)) for window_BL in (first, second)]
    queries = [learner.module(group.input_BL, group.target_BL > 0) for group in groups]
    torch.testing.assert_close(*queries, rtol=0, atol=0)
    assert groups[1].target_BL[hidden_BL].tolist() == [17, 17, 17]


@pytest.mark.parametrize("positions", ["from_start", "from_end"])
def test_padding_changes_no_score_in_content_or_amount(positions):
    learner = build(positions=positions)
    plain = scores(learner, [[3, 1, 4]])
    torch.testing.assert_close(scores(learner, [[0, 0, 3, 1, 4], [5, 6, 7, 8, 9]])[:1], plain, rtol=0, atol=1e-5)
    learner.module.items.weight.data[0] = 7.0
    torch.testing.assert_close(scores(learner, [[0, 0, 3, 1, 4]])[:, 1:], plain[:, 1:], rtol=0, atol=1e-5)


def test_from_start_and_right_padding_are_the_same():
    """As released: slots count from the oldest item, and padding stands to the right of the mask."""
    module = build().module.eval()
    left, right = torch.tensor([[0, 0, 3, 1, MASK]]), torch.tensor([[3, 1, MASK, 0, 0]])
    torch.testing.assert_close(module(left, left == MASK), module(right, right == MASK), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "rate", "most", "count"), [(10, 0.2, 12, 2), (3, 0.2, 12, 1), (10, 0.6, 4, 4), (12, 1.0, 99, 12)]
)
def test_number_of_masked_items(n, rate, most, count):
    window_BL, masked_BL = masks([n, n, 12, 1], mask_rate=rate, max_masked=most)
    assert masked_BL[:2].sum(1).tolist() == [count, count]
    assert not masked_BL[window_BL == 0].any()
    assert masked_BL[3].sum() == 1


def test_masks_are_uniform_and_fresh():
    counts = sum(masks([5], mask_rate=0.4, seed=seed)[1][0].int() for seed in range(2000))
    assert (counts > 700).all() and (counts < 900).all()


def test_some_windows_hide_only_their_last_item():
    _, masked_BL = masks([7] * 4000, mask_rate=0.5, last_only_rate=1 / 11)
    only_last = masked_BL[:, -1] & (masked_BL.sum(1) == 1)
    assert abs(float(only_last.float().mean()) - 1 / 11) < 0.02


def test_windows_of_long_users_go_back_from_the_end():
    data = ResidentSequences.of(Sequences.from_lists([list(range(1, 18)), [3, 4], [5]]))
    sampler = bert4rec.WindowSampler(data, bert4rec.Config(**SMALL | {"max_len": 8, "window_stride": 0.5}))
    rows = sampler.batch(torch.arange(sampler.num_samples), groups=1)[0].tolist()
    rows = [[item for item in row if item] for row in rows]
    assert sorted(rows) == sorted(
        [list(range(10, 18)), list(range(6, 14)), list(range(2, 10)), list(range(1, 9)), [3, 4], [5]]
    )


def test_groups_of_similar_length_hold_the_same_windows():
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 20, size=rng.integers(1, 12)).tolist() for _ in range(11)]
    sampler = build(rows).sampler
    for groups in (1, 3, 4, 20):
        found = [[i for i in row if i] for part in sampler.batch(torch.arange(11), groups) for row in part.tolist()]
        assert sorted(found) == sorted(rows)


def test_loss_in_groups_equals_loss_as_a_whole():
    learner = build(max_len=8)
    groups = next(iter(learner.batches()))
    width = max(group.input_BL.shape[1] for group in groups)
    pad = lambda x: F.pad(x, (width - x.shape[1], 0))  # noqa: E731
    whole = bert4rec.MaskedGroup(
        *(torch.cat([pad(getattr(g, name)) for g in groups]) for name in ("input_BL", "target_BL"))
    )
    torch.testing.assert_close(learner.loss([whole]), learner.loss(groups))


def test_loss_is_the_cross_entropy_over_the_whole_vocabulary():
    learner = build()
    groups = next(iter(learner.batches()))
    query = torch.cat([learner.module(g.input_BL, g.target_BL > 0) for g in groups])
    target = torch.cat([g.target_BL[g.target_BL > 0] for g in groups])
    expected = F.cross_entropy(query @ learner.module.items.weight.T + learner.module.bias, target)
    torch.testing.assert_close(learner.loss(groups)["loss"], expected)


def test_loss_of_a_zero_table_is_the_logarithm_of_the_vocabulary():
    learner = build()
    torch.nn.init.zeros_(learner.module.items.weight)
    torch.nn.init.zeros_(learner.module.bias)
    torch.testing.assert_close(learner.loss(next(iter(learner.batches())))["loss"], torch.tensor(22.0).log())


def test_test_input_is_the_history_and_one_mask(monkeypatch):
    learner = build()
    seen = []
    forward = learner.module.forward
    monkeypatch.setattr(learner.module, "forward", lambda x, read: (seen.append((x, read)), forward(x, read))[1])
    scores(learner, [[2, 3, 4, 5]])
    assert seen[0][0].tolist() == [[2, 3, 4, 5, MASK]]
    assert seen[0][1].tolist() == [[False] * 4 + [True]]


def test_a_full_history_leaves_a_slot_for_the_mask():
    learner = build()
    assert learner.max_len == 11
    history = list(range(1, 15))
    torch.testing.assert_close(scores(learner, [history]), scores(learner, [history[-11:]]))


def test_learning_rate_warms_up_and_falls_to_zero():
    learner = build(warmup_steps=4, total_steps=10, learning_rate=1.0)
    rates = []
    for _ in range(11):
        rates.append(learner.optimizer.param_groups[0]["lr"])
        learner.training_step(next(iter(learner.batches())))
    assert rates[:4] == pytest.approx([0.25, 0.5 * 0.9, 0.75 * 0.8, 0.7])
    assert rates[9:] == pytest.approx([0.1, 0.0])


def test_all_but_biases_and_norms_decay():
    model = build()
    decayed, others = model.optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.module.named_parameters()}
    assert decayed["weight_decay"] == 0.01 and others["weight_decay"] == 0
    assert not any("norm" in names[id(p)] or "bias" in names[id(p)] for p in decayed["params"])
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_number_of_parameters():
    block = 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 16
    assert num_parameters(build().module) == 22 * 8 + 12 * 8 + 8 + 16 + 2 * block + (8 * 8 + 8) + 16 + 22


def test_relabelled_items_give_relabelled_scores():
    learner = build()
    order = torch.cat([torch.tensor([0]), torch.randperm(20, generator=torch.Generator().manual_seed(0)) + 1])
    before = scores(learner, [[3, 1, 4]])
    for table in (learner.module.items.weight.data, learner.module.bias.data):
        table[order] = table[:21].clone()
    torch.testing.assert_close(scores(learner, [order[[3, 1, 4]].tolist()])[:, order], before)


def test_overfits_32_sequences_with_fixed_masks():
    rng = np.random.default_rng(0)
    rows = [rng.permutation(60)[:6] + 1 for _ in range(32)]
    settings = {"embedding_dim": 32, "inner_dim": 64, "mask_rate": 0.3, "learning_rate": 3e-3, "weight_decay": 0.0}
    view = TrainingView(Sequences.from_lists([row.tolist() for row in rows], 60))
    learner = bert4rec.build(SMALL | settings | {"total_steps": None}, view, Streams(0), Compute())
    batch = next(iter(learner.batches()))
    learner.module.train()
    losses = [float(learner.training_step(batch)["loss"]) for _ in range(300)]
    assert losses[-1] < 0.05


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_heads", 3), ("max_len", 1), ("mask_rate", 0.0), ("mask_rate", 1.1), ("max_masked", 0), ("dropout", 1.0),
     ("window_stride", 0.0), ("total_steps", 50), ("positions", "sine"), ("clip_norm", 0.0),
     ("learning_rate", -1.0), ("weight_decay", -1.0)],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        build(**{key: value})
