"""STOSA: the distance in closed form, what each encoder sees, the losses, attention weights of both moments."""

import math

import pytest
import torch

from baselines import stosa
from baselines.stosa import (
    Block,
    Config,
    Network,
    as_point,
    closeness,
    distance_cross_entropy,
    pairwise_terms,
    positive,
    wasserstein,
)
from harness.compute import Compute
from harness.learner import num_parameters
from harness.split import leave_one_out
from harness.streams import Streams, UserNoise
from harness.synthetic import chain

SMALL = {"embedding_dim": 8, "num_heads": 2, "max_len": 12, "dropout": 0.0, "batch_size": 16}


def learner(**settings):
    view = leave_one_out(chain(num_users=40, num_items=20)).training_view()
    return stosa.build({**SMALL, **settings}, view, Streams(1), Compute())


def gaussians(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return mean, torch.rand(count, dim, generator=generator, dtype=torch.float64) + 0.1


def root(matrix):
    value, vector = torch.linalg.eigh(matrix)
    return vector @ value.clamp(min=0).sqrt().diag() @ vector.T


def test_distance_is_the_general_closed_form():
    (mean_a, mean_b), (variance_a, variance_b) = gaussians(2, 16)
    a, b = variance_a.diag(), variance_b.diag()
    expected = (mean_a - mean_b).square().sum() + torch.trace(a + b - 2 * root(root(b) @ a @ root(b)))
    torch.testing.assert_close(wasserstein(as_point(mean_a, variance_a), as_point(mean_b, variance_b)), expected)


def test_matrix_form_is_the_direct_form():
    query, key = (as_point(*(part.float() for part in gaussians(5, 16, seed))) for seed in (1, 2))
    direct = wasserstein(query[:, None], key[None])
    matrix = query.square().sum(1, keepdim=True) - closeness(query, key)
    torch.testing.assert_close(matrix, direct, rtol=0, atol=1e-4)


def test_distance_of_known_gaussians():
    zero, one = torch.zeros(64), torch.ones(64)
    standard, wide = as_point(zero, one), as_point(zero, 4 * one)
    assert float(wasserstein(standard, wide)) == 64
    assert float(wasserstein(wide, standard)) == 64
    assert float(wasserstein(wide, wide)) == 0


def test_number_of_parameters_on_beauty():
    """The reference's 1,677,915 without its user margins and the two rows of its mask id."""
    assert num_parameters(Network(Config(), 12_101)) == 1_677_915 - 22_363 - 2 * 64


@pytest.mark.parametrize(("encoder", "mean_moves"), [("released", False), ("paper", True)])
def test_only_the_paper_encoder_moves_the_mean(encoder, mean_moves):
    network = learner(encoder=encoder, num_blocks=2).module.eval()
    with torch.no_grad():
        first, second = (network(torch.tensor([row])) for row in ([1, 2, 3, 4], [7, 9, 8, 4]))
    assert torch.equal(first[0][:, -1], second[0][:, -1]) != mean_moves
    assert not torch.equal(first[1][:, -1], second[1][:, -1])


@pytest.mark.parametrize("encoder", ["released", "paper"])
def test_mean_layers_learn_in_the_paper_encoder_only(encoder):
    model = learner(encoder=encoder)
    model.loss(next(iter(model.batches())))["loss"].backward()
    block = model.module.blocks[0]
    layers = block.value["mean"], block.output["mean"], block.inner["mean"], block.norm_outer["mean"]
    assert {layer.weight.grad is not None for layer in layers} == {encoder == "paper"}
    assert block.query["mean"].weight.grad is not None


def test_pairwise_loss_is_finite_far_out_and_ln_2_at_the_origin():
    query, near = torch.zeros(1, 2), torch.zeros(1, 2)
    far = torch.tensor([[500.0**0.5, 0.0]])
    torch.testing.assert_close(pairwise_terms(query, near, near)[0], torch.tensor([math.log(2)]))
    torch.testing.assert_close(pairwise_terms(query, far, near)[0], torch.tensor([500.0]))  # D- - D+ = -500
    torch.testing.assert_close(pairwise_terms(query, near, far)[0], torch.tensor([0.0]))


def test_margin_counts_what_exceeds_the_distance_of_positive_and_negative():
    query, close, away = torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.tensor([[3.0]])
    assert float(pairwise_terms(query, close, away)[1]) == 0  # D+ = 1, Dpn = 4
    assert float(pairwise_terms(query, away, close)[1]) == 9 - 4


def test_loss_compares_next_items_with_items_the_user_never_had():
    model, twin = learner(), learner()
    batch = next(iter(model.batches()))
    terms = model.loss(batch)
    real = batch.target_BL > 0
    negative = twin.negatives.draw(batch.user_B, (real.shape[1],), twin.streams.torch("negatives"))
    own = [set(row[row > 0].tolist()) for row in torch.cat([batch.input_BL, batch.target_BL], dim=1)]
    assert not any(int(item) in own[row] for row, items in enumerate(negative) for item in items)
    query = as_point(*model.module(batch.input_BL))
    items = [model.module.item_points(item) for item in (batch.target_BL, negative)]
    pairwise, margin = (term[real].mean() for term in pairwise_terms(query, *items))
    torch.testing.assert_close(terms["loss"], pairwise + 0.005 * margin)


def test_softmax_loss_is_that_of_minus_the_distance():
    query, items = (as_point(*(part.float() for part in gaussians(count, 4, count))) for count in (3, 7))
    target = torch.tensor([1, 6, 2])
    logits = -wasserstein(query[:, None], items[None, 1:])
    expected = torch.nn.functional.cross_entropy(logits, target - 1)
    torch.testing.assert_close(distance_cross_entropy(query, items, target), expected)


@pytest.mark.parametrize("loss", ["pairwise", "softmax"])
def test_length_slices_do_not_change_loss_or_gradients(loss):
    found = []
    for slices in (1, 4):
        model = learner(loss=loss, length_slices=slices)
        value = model.loss(next(iter(model.batches())))["loss"]
        value.backward()
        found.append([value.detach(), *(p.grad for p in model.module.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_network_is_the_paper_written_out():
    """Both streams of two blocks, a head and a position at a time, for one history without padding."""
    torch.manual_seed(0)
    network = Network(Config(**{**SMALL, "num_blocks": 2}), 20).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    items, elu = torch.tensor([3, 7, 1, 5]), torch.nn.functional.elu
    g = lambda x: elu(x) + 1  # noqa: E731
    mean = elu(network.norm(network.means.weight[items] + network.mean_positions[-4:]))
    variance = g(network.norm(network.variances.weight[items] + network.variance_positions[-4:]))
    for block in network.blocks:
        (q, k, v), (q_var, k_var, v_var) = (
            [change(layers[name](x)) for layers in (block.query, block.key, block.value)]
            for name, x, change in (("mean", mean, lambda x: x), ("variance", variance, g))
        )
        new_mean, new_variance = torch.zeros(4, 8), torch.zeros(4, 8)
        for head in (slice(0, 4), slice(4, 8)):
            for i in range(4):
                past = slice(0, i + 1)
                w = (q[i, head] - k[past, head]).square().sum(-1)
                w = w + (q_var[i, head].sqrt() - k_var[past, head].sqrt()).square().sum(-1)
                a = (-w / 4**0.5).softmax(0)
                new_mean[i, head] = a @ v[past, head]
                new_variance[i, head] = a.square() @ v_var[past, head]
        streams = []
        for name, context, residual in (("mean", new_mean, mean), ("variance", new_variance, variance)):
            x = block.norm(block.output[name](context) + residual)
            streams.append(block.norm_outer[name](block.outer[name](elu(block.inner[name](x))) + x))
        mean, variance = streams[0], g(streams[1])
    found = network(items[None])
    torch.testing.assert_close(found[0][0], mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1][0], variance, rtol=1e-4, atol=1e-4)


def test_scores_rank_by_distance():
    model = learner()
    history = torch.tensor([[0, 0, 3, 4], [1, 2, 3, 4]])
    model.module.eval()
    with torch.no_grad():
        score = model.score(history, torch.tensor([0, 1]), UserNoise.single(2, 4))
        mean, variance = model.module(history)
        query = as_point(mean[:, -1], variance[:, -1])
        items = as_point(model.module.means.weight, positive(model.module.variances.weight))
        distance = wasserstein(query[:, None], items[None])
    torch.testing.assert_close(score, query.square().sum(1, keepdim=True) - distance, rtol=0, atol=1e-5)


def test_variance_of_a_uniform_average_of_n_is_one_nth():
    block, contexts = Block(Config(**SMALL)).eval(), {}
    for layers in (block.query, block.key, block.value):
        for layer in layers.values():  # all keys alike, values of variance ELU(0) + 1 = 1
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    original = block._context
    block._context = lambda name, context, residual: original(name, contexts.setdefault(name, context), residual)
    block(torch.randn(1, 5, 8), torch.rand(1, 5, 8), torch.ones(1, 1, 5, 5, dtype=torch.bool))
    torch.testing.assert_close(contexts["variance"], torch.full((1, 2, 5, 4), 1 / 5))


def test_attention_weights_are_the_softmax_of_minus_the_distance_by_the_root_of_a_heads_width():
    block = Block(Config(**SMALL)).eval()
    query, key = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)  # mean beside deviation: heads are 4 wide
    weight = block._weights(query, key, torch.ones(1, 1, 5, 5, dtype=torch.bool))
    distance = wasserstein(query[..., :, None, :], key[..., None, :, :])
    torch.testing.assert_close(weight, (-distance / math.sqrt(4)).softmax(-1))


def test_attention_weights_read_earlier_real_items_only():
    network = learner().module.eval()
    block, weights = network.blocks[0], []
    original = block._weights
    block._weights = lambda *points: weights.append(original(*points)) or weights[-1]
    network(torch.tensor([[0, 5, 6, 7]]))
    weight = weights[0][0, 0].detach()
    assert (weight[1:, 0] == 0).all() and (weight.triu(1) == 0).all()
    assert (weight.square().sum(-1) <= 1 + 1e-6).all()
    torch.testing.assert_close(weight.sum(-1), torch.ones(4))


def test_initial_weights_and_frozen_padding():
    model = learner(weight_decay=0.0)
    before = model.module.means.weight[0].clone()
    for batch in model.batches():
        model.training_step(batch)
    assert torch.equal(model.module.means.weight[0], before)
    table = Network(Config(), 5000).means.weight.detach()
    assert float(table.mean()) == pytest.approx(0.01, abs=3e-4)
    assert float(table.std()) == pytest.approx(0.02, rel=0.01)


def test_smallest_variance_has_a_finite_gradient():
    x = torch.tensor([-200.0], requires_grad=True)
    as_point(torch.zeros(1), positive(x)).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    "wrong", [{"num_heads": 3}, {"encoder": "mean"}, {"margin_weight": -0.1}, {"max_len": 0}, {"learning_rate": -1.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        learner(**wrong)
