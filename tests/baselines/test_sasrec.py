"""SASRec: the released network, its losses and what its positions may see."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.sasrec import Config, Network, build
from harness.compute import Compute
from harness.learner import num_parameters
from harness.split import Sequences, leave_one_out
from harness.streams import Streams, UserNoise
from harness.synthetic import chain

SPLIT = leave_one_out(chain(num_users=32, num_items=30, min_length=5, max_length=14))
SMALL = {"embedding_dim": 8, "max_len": 10, "dropout": 0.0, "batch_size": 64}


def make(split=SPLIT, seed=1, **changes):
    return build(SMALL | changes, split.training_view(), Streams(seed), Compute())


def network(**changes):
    torch.manual_seed(0)
    one = Network(Config(**(SMALL | changes)), 30).eval()
    with torch.no_grad():
        for parameter in one.parameters():  # away from zero biases and unit gains
            parameter.add_(0.1 * torch.randn_like(parameter))
        one.items.weight[0] = 0
    return one


def first_batch(learner):
    return next(iter(learner.batches()))


@pytest.mark.parametrize("residual", ["normalised", "raw"])
def test_no_position_sees_the_future(residual):
    one = network(residual=residual)
    history = torch.tensor([[0, 0, 3, 4, 5, 6]])
    expected = one(history)
    for place in range(2, 6):
        changed = history.clone()
        changed[0, place] = 20
        found = one(changed)
        torch.testing.assert_close(found[:, 2:place], expected[:, 2:place], rtol=0, atol=1e-6)
        assert not torch.allclose(found[:, place], expected[:, place], atol=1e-3)


@pytest.mark.parametrize("residual", ["normalised", "raw"])
def test_more_padding_on_the_left_changes_nothing(residual):
    one = network(residual=residual)
    history = torch.tensor([[3, 4, 5, 6]])
    padded = F.pad(history, (6, 0))
    torch.testing.assert_close(one(padded)[:, -4:], one(history), rtol=0, atol=1e-6)


def test_padding_alone_gives_finite_output():
    assert torch.isfinite(network()(torch.zeros(2, 10, dtype=torch.long))).all()


def test_the_last_position_alone_equals_the_full_pass():
    one = network(num_heads=2)
    history = torch.tensor([[0, 0, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]])
    torch.testing.assert_close(one(history, last_only=True)[:, 0], one(history)[:, -1], rtol=0, atol=1e-6)


def reference(one, items):
    """The released network for one history without padding, written a position at a time."""
    dim = one.items.embedding_dim
    x = one.items.weight[items] * math.sqrt(dim) + one.positions[-len(items) :]
    for block in one.blocks:
        norm = F.layer_norm(x, (dim,), block.norm_attention.weight, block.norm_attention.bias, 1e-8)
        q, k, v = block.query(norm), block.key(x), block.value(x)  # keys and values from the raw input
        rows = []
        for t in range(len(items)):
            weights = (k[: t + 1] @ q[t] / math.sqrt(dim)).softmax(0)
            rows.append(weights @ v[: t + 1] + norm[t])  # no output projection, normalised residual
        y = torch.stack(rows)
        norm = F.layer_norm(y, (dim,), block.norm_feed_forward.weight, block.norm_feed_forward.bias, 1e-8)
        x = norm + block.outer(F.relu(block.inner(norm)))
    return F.layer_norm(x, (dim,), one.norm.weight, one.norm.bias, 1e-8)


def test_the_network_is_the_released_one():
    one = network()
    items = torch.tensor([5, 6, 7, 5, 1])
    torch.testing.assert_close(one(items[None])[0], reference(one, items), rtol=1e-5, atol=1e-5)


def test_raw_residuals_are_pre_norm():
    one = network(residual="raw", num_blocks=1)
    block, x = one.blocks[0], torch.randn(1, 1, 8)
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    y = x + block.value(block.norm_attention(x))  # a single position attends to itself only
    expected = y + block.outer(F.relu(block.inner(block.norm_feed_forward(y))))
    torch.testing.assert_close(block(x, mask), expected)


@pytest.mark.parametrize(("num_items", "dim", "blocks", "length"), [(30, 8, 2, 10), (12101, 50, 2, 50)])
def test_parameter_count_by_formula(num_items, dim, blocks, length):
    one = Network(Config(embedding_dim=dim, num_blocks=blocks, max_len=length), num_items)
    expected = (num_items + 1) * dim + length * dim + blocks * (5 * (dim * dim + dim) + 4 * dim) + 2 * dim
    assert num_parameters(one) == expected


def test_initialisation_is_glorot_uniform_with_a_zero_padding_row():
    one = Network(Config(), 12101)
    bound = math.sqrt(6 / (12102 + 50))
    table = one.items.weight.detach()
    assert (table[0] == 0).all()
    assert 0.99 * bound < float(table.abs().max()) <= bound
    assert all((block.query.bias == 0).all() for block in one.blocks)
    normal = Network(Config(init="normal"), 2000).items.weight.detach()[1:]
    assert float(normal.std()) == pytest.approx(0.02, rel=0.02)


def silence(learner):
    with torch.no_grad():
        learner.module.items.weight.zero_()


def test_zero_scores_cost_what_they_must():
    for loss, expected in (("binary", 2 * math.log(2)), ("softmax", math.log(30))):
        learner = make(loss=loss)
        silence(learner)
        found = learner.loss(first_batch(learner))["loss"]
        assert float(found.detach()) == pytest.approx(expected, rel=1e-6), loss


def test_loss_counts_exactly_the_real_positions(monkeypatch):
    split = leave_one_out(Sequences.from_lists([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 12], [1, 2, 3]], 30))
    counted = []

    def spy(positive, negative):
        counted.append(len(positive))
        return positive * 0 + 1.0

    monkeypatch.setattr("baselines.sasrec.binary_cross_entropy", spy)
    learner = make(split, length_slices=1) if "length_slices" in {f.name for f in fields(Config)} else make(split)
    assert float(learner.loss(first_batch(learner))["loss"].detach()) == 1.0
    assert sum(counted) == 2 + 4  # training parts of 3, 5 and 1 items


def test_targets_are_the_next_items_and_held_out_items_never_appear():
    rows = [[1, 2, 3, 4, 28, 29], [5, 6, 7, 30, 27]]
    split = leave_one_out(Sequences.from_lists(rows, 30))
    batch = first_batch(make(split))
    pairs = set()
    for source, target in zip(batch.input_BL.tolist(), batch.target_BL.tolist(), strict=True):
        pairs |= {(s, t) for s, t in zip(source, target, strict=True) if t}
    assert pairs == {(1, 2), (2, 3), (3, 4), (5, 6), (6, 7)}


def test_negatives_avoid_training_items_only():
    """The held-out items must be drawn: a sampler that spares them leaks them."""
    split = leave_one_out(Sequences.from_lists([[1, 2, 3, 4, 5, 6]], 8))
    learner = make(split)
    drawn = learner.negatives.draw(torch.tensor([0]), (500,), torch.Generator().manual_seed(0))
    assert set(drawn.flatten().tolist()) == {5, 6, 7, 8}


def test_each_position_draws_negatives_for_its_own_user(monkeypatch):
    learner = make()
    batch, drawn_for = first_batch(learner), []
    draw = learner.negatives.draw
    monkeypatch.setattr(learner.negatives, "draw", lambda user, *rest: drawn_for.append(user) or draw(user, *rest))
    learner.loss(batch)
    assert drawn_for[0].equal(batch.user_B[(batch.target_BL > 0).nonzero()[:, 0]])


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_the_padding_row_stays_zero_while_training(loss):
    learner = make(loss=loss, weight_decay=0.01)
    for _ in range(3):
        for batch in learner.batches():
            learner.training_step(batch)
    assert (learner.module.items.weight[0] == 0).all()


@pytest.mark.parametrize(("loss", "within"), [("softmax", 1), ("binary", 12)])
def test_thirty_two_sequences_are_learned_by_heart(loss, within):
    """With sampled negatives a user's own items are never pushed down: they stay above the rest."""
    torch.manual_seed(0)
    learner = make(loss=loss, embedding_dim=32, learning_rate=1e-2)
    for _ in range(40):
        for batch in learner.batches():
            learner.training_step(batch)
    batch = first_batch(learner)
    score = learner.score(batch.input_BL, batch.user_B, UserNoise.single(len(batch.user_B), 10))
    score[:, 0] = -torch.inf
    target = batch.target_BL[:, -1:]
    assert int((score >= score.gather(1, target)).sum(1).max()) <= within


def test_scores_are_inner_products_with_the_unscaled_table():
    learner = make()
    learner.module.eval()
    history = torch.tensor([[0, 3, 4], [1, 2, 3]])
    found = learner.score(history, torch.tensor([0, 1]), UserNoise.single(2, 3))
    expected = learner.module(history)[:, -1] @ learner.module.items.weight.T
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 31)


CHANGES = {
    "embedding_dim": 4,
    "num_blocks": 1,
    "num_heads": 2,
    "max_len": 3,
    "dropout": 0.5,
    "residual": "raw",
    "init": "normal",
    "loss": "softmax",
    "pieces": "all",
    "batch_size": 5,
    "learning_rate": 1e-2,
    "beta2": 0.5,
    "weight_decay": 0.1,
}
WITHOUT_EFFECT = {"length_slices"}  # how a batch is computed, not what comes out


def trace(**changes):
    learner = make(**changes)
    learner.module.train()
    torch.manual_seed(1)
    losses = [float(learner.training_step(batch)["loss"]) for _ in range(3) for batch in learner.batches()]
    return losses, [value.sum().item() for value in learner.module.state_dict().values()]


@pytest.mark.parametrize("name", [field.name for field in fields(Config) if field.name not in WITHOUT_EFFECT])
def test_every_field_matters(name):
    base = {"max_len": 6}
    assert trace(**(base | {name: CHANGES[name]})) != trace(**base)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 3}, "num_heads: 3 .* divisors of embedding_dim"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"max_len": 0}, "max_len: 0"),
        ({"learning_rate": -1e-3}, "learning_rate: -0.001 .* 0 or more"),
        ({"weight_decay": -1.0}, "weight_decay: -1.0"),
        ({"beta2": 1.0}, "beta2: 1.0"),
        ({"loss": "bpr"}, "loss: 'bpr' is not one of 'binary', 'softmax'"),
        ({"embeding_dim": 8}, "sasrec: unknown key 'embeding_dim' .did you mean 'embedding_dim'"),
    ],
)
def test_mistakes_in_settings_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        make(**values)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_length_slices_do_not_change_loss_or_gradients(loss):
    if "length_slices" not in {field.name for field in fields(Config)}:
        pytest.skip("this SASRec encodes its batches whole")
    found = []
    for slices in (1, 4):
        learner = make(loss=loss, length_slices=slices)
        value = learner.loss(first_batch(learner))["loss"]
        value.backward()
        found.append([value.detach(), *(p.grad for p in learner.module.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_beauty_has_one_piece_per_user_and_the_printed_size(shared_dir):
    lines = (shared_dir / "data" / "beauty.sequences.txt").read_text().splitlines()
    split = leave_one_out(Sequences.from_lists([[int(i) for i in line.split()[1:]] for line in lines]))
    learner = build({}, split.training_view(), Streams(1), Compute())
    assert learner.sampler.num_samples == split.num_users == 22363
    assert num_parameters(learner.module) == 12102 * 50 + 50 * 50 + 2 * (5 * 2550 + 200) + 100
    assert np.isfinite(float(learner.loss(first_batch(learner))["loss"].detach()))
    assert replace(learner.config) == Config()
