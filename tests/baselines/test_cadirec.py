"""CaDiRec: the schedule, the noise, DeBERTa's attention, the views, what each loss trains."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines import cadirec
from baselines.cadirec import Config, Network, RelativeAttention, info_nce, square_root_schedule
from harness.compute import Compute
from harness.learner import num_parameters
from harness.losses import binary_cross_entropy
from harness.split import leave_one_out
from harness.streams import Streams
from harness.synthetic import chain

SMALL = {"embedding_dim": 8, "inner_dim": 12, "max_len": 12, "batch_size": 16, "num_candidates": 4, "num_steps": 1000}


def learner(num_users=40, **settings):
    view = leave_one_out(chain(num_users=num_users, num_items=20)).training_view()
    return cadirec.build({**SMALL, **settings}, view, Streams(1), Compute())


def first_batch(model):
    return next(iter(model.batches()))


def test_schedule_follows_its_closed_form():
    beta = square_root_schedule(1000)
    alpha_bar = np.cumprod(1 - beta)
    for index, printed in ((0, 0.976600), (9, 0.908587), (99, 0.690519), (499, 0.295780), (998, 0.000455)):
        closed = (1 - math.sqrt((index + 1) / 1000 + 1e-4)) / 0.99
        assert alpha_bar[index] == pytest.approx(closed, rel=1e-9)
        assert alpha_bar[index] == pytest.approx(printed, abs=5e-7)
    assert beta[999] == 0.999


def test_moments_of_masked_and_other_positions():
    model = learner()
    clean, masked = torch.full((4000, 2, 8), 0.5), torch.tensor([[True, False]]).expand(4000, -1)
    x = model.noisy(clean, masked, torch.full((4000,), 499))
    assert float(x[:, 0].mean()) == pytest.approx(math.sqrt(0.29578) * 0.5, abs=0.02)
    assert float(x[:, 0].var()) == pytest.approx(0.29578 * 0.0234 + 0.70422, rel=0.03)
    assert float(x[:, 1].mean()) == pytest.approx(0.5, abs=0.005)
    assert float(x[:, 1].var()) == pytest.approx(0.0234, rel=0.03)


def test_number_of_parameters_on_beauty():
    """The reference's 979,911 without its unused bias per id and the row of its mask id."""
    network = Network(Config(), 12_101)
    assert num_parameters(network) == 979_911 - 12_103 - 64
    assert num_parameters(network.denoiser.time) == 33_088
    rest = sum(num_parameters(part) for part in (network.denoiser.time, network.denoiser.norm))
    assert num_parameters(network.denoiser) - rest == 89_728
    assert sum(num_parameters(part) for part in (network.attention, network.residuals)) == 66_944


def test_relative_attention_is_its_formula():
    """Each logit from loops; two positions beyond the reach share the clipped row."""
    model = learner()
    attention = RelativeAttention(Config(**{**SMALL, "max_len": 3})).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    assert model.module.denoiser.attention[0].reach == 12
    x, relative = torch.randn(1, 5, 8), torch.randn(6, 8)
    real = torch.tensor([False, True, True, True, True])
    q, k, v = attention.projection(x[0]).chunk(3, dim=-1)
    q, v = q + attention.query_bias, v + attention.value_bias
    key_p, query_p = attention.position_key(relative), attention.position_query(relative)
    context = torch.zeros(5, 8)
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(1, 5):
            logits = torch.full((5,), -torch.inf)
            for j in range(1, 5):
                r = min(max(i - j + 3, 0), 5)
                parts = q[i, head] @ k[j, head] + q[i, head] @ key_p[r, head] + k[j, head] @ query_p[r, head]
                logits[j] = parts / math.sqrt(3 * 4)
            context[i, head] = logits.softmax(-1) @ v[:, head]
    mask = (real[:, None] & real)[None, None]
    torch.testing.assert_close(attention(x, mask, relative)[0], attention.output(context), rtol=1e-4, atol=1e-4)


def test_denoiser_looks_both_ways_and_not_at_padding():
    denoiser = learner().module.denoiser.eval()
    x, real = torch.randn(1, 4, 8), torch.tensor([[False, True, True, True]])
    step = torch.tensor([5])
    base, later, padding = x.clone(), x.clone(), x.clone()
    later[0, 3] = torch.randn(8)
    padding[0, 0] = torch.randn(8)
    out = [denoiser(each, step, real)[0, 1:] for each in (base, later, padding)]
    assert not torch.equal(out[0][0], out[1][0])
    assert torch.equal(out[0], out[2])


def test_info_nce_of_orthogonal_pairs():
    radius, count = 1.7, 5
    rows = radius * torch.eye(count)
    expected = -(radius**2) + math.log(math.exp(radius**2) + 2 * count - 2)
    assert float(info_nce(torch.cat([rows, rows]))) == pytest.approx(expected, abs=1e-5)


def test_info_nce_pairs_a_row_with_its_twin():
    one, two = 3 * torch.eye(4), 3 * torch.eye(4)
    assert info_nce(torch.cat([one, two])) < info_nce(torch.cat([one, two.roll(1, dims=0)]))


def test_contrast_trains_layers_and_positions_but_no_item():
    model = learner()
    history = first_batch(model).input_BL
    info_nce(model.module(history.repeat(2, 1), detached=True, last_only=True)[:, -1]).backward()
    assert model.module.items.weight.grad is None
    assert model.module.positions.grad.abs().sum() > 0
    assert model.module.attention[0].query.weight.grad.abs().sum() > 0


def test_item_gradient_of_the_whole_loss_has_no_part_of_the_contrast():
    gradients = []
    for weight in (1e-9, 5.0):
        model = learner(contrast_weight=weight, mask_rate=0.5, dropout=0.0, denoiser_dropout=0.0)
        model.loss(first_batch(model))["loss"].backward()
        gradients.append(model.module.items.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-7)


def test_denoising_trains_the_items():
    model = learner(mask_rate=0.5)
    model.denoise(first_batch(model).input_BL)[0].backward()
    assert model.module.items.weight.grad.abs().sum() > 0
    assert model.module.denoiser.time[0].weight.grad.abs().sum() > 0
    assert model.module.attention[0].query.weight.grad is None


def test_nothing_masked_costs_nothing():
    model = learner(mask_rate=1e-9)
    batch = first_batch(model)
    terms = model.loss(batch)
    assert float(terms["denoising"]) == 0
    assert torch.isfinite(terms["loss"])
    assert torch.equal(model.denoise(batch.input_BL)[1], batch.input_BL.repeat(2, 1))


def planned(model, history, masked, logits):
    """The learner with chosen masked positions and denoiser outputs."""
    model.config = Config(**{**SMALL, "mask_rate": 0.5})
    original = torch.rand
    torch.rand = lambda *args, **kwargs: torch.where(masked, 0.0, 1.0)
    model._reconstruct = lambda history_RL, masked_RL: logits
    try:
        return model.denoise(history)
    finally:
        torch.rand = original


def test_denoising_averages_positions_then_all_sequences():
    history = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [0, 0, 8, 9]])
    masked = torch.tensor([[True, False, True, False], [True, True, True, False], [False] * 4])  # padding: not masked
    logits = torch.randn(4, 20)
    loss, _ = planned(learner(), history, masked, logits)
    nll = F.cross_entropy(logits, torch.tensor([2, 4, 5, 6]) - 1, reduction="none")
    expected = (nll[0] / (1 + 1e-5) + nll[1:].sum() / (3 + 1e-5)) / 3
    torch.testing.assert_close(loss, expected)


def test_views_take_one_of_the_best_candidates_at_masked_positions_only():
    history = torch.arange(1, 21).repeat(50, 1)
    masked = torch.zeros(50, 20, dtype=torch.bool)
    masked[:, [3, 7]] = True
    logits = torch.randn(20).repeat(100, 1)
    _, views = planned(learner(), history, masked, logits)
    both = torch.cat([masked, masked])
    assert torch.equal(views[~both], history.repeat(2, 1)[~both])
    best = set((logits[0].topk(4).indices + 1).tolist())
    assert set(views[both].tolist()) == best
    assert not torch.equal(views[:50], views[50:])


def test_without_extra_terms_it_is_sasrec_with_binary_cross_entropy():
    """alpha = beta = 0 gives, step for step, the weights of the plain recommender trained by hand."""
    model, plain = (learner(contrast_weight=0.0, denoise_weight=0.0, dropout=0.2, length_slices=1) for _ in range(2))
    optimizer = torch.optim.Adam(plain.module.parameters(), lr=1e-3)
    torch.manual_seed(0)
    for batch in model.batches():
        model.training_step(batch)
    torch.manual_seed(0)
    for batch in plain.batches():
        real = batch.target_BL > 0
        generator = plain.streams.torch("negatives")
        negative = plain.negatives.draw(batch.user_B, (real.shape[1],), generator)
        hidden, table = plain.module(batch.input_BL), plain.module.items.weight
        scores = [torch.einsum("bld,bld->bl", hidden, table[item])[real] for item in (batch.target_BL, negative)]
        optimizer.zero_grad()
        binary_cross_entropy(*scores).mean().backward()
        optimizer.step()
    for name, value in model.module.state_dict().items():
        torch.testing.assert_close(plain.module.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_length_slices_do_not_change_loss_or_gradients(loss):
    """Apart from the noise, which is drawn group by group and left out here."""
    found = []
    for slices in (1, 4):
        model = learner(loss=loss, length_slices=slices, mask_rate=0.3, dropout=0.0, denoiser_dropout=0.0)
        model.noisy = lambda clean_BLD, masked_BL, t_B: clean_BLD
        terms = model.loss(first_batch(model))
        terms["loss"].backward()
        found.append([*(value.detach() for value in terms.values()), *(p.grad for p in model.module.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_last_position_alone_is_the_last_of_all():
    network = learner().module.eval()
    history = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 6, 7, 8]])
    torch.testing.assert_close(network(history, last_only=True)[:, 0], network(history)[:, -1])


def test_recommender_is_the_released_one():
    """Post-norm blocks with exact GELU, a head and a position at a time."""
    network = learner().module.eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    items = torch.tensor([3, 7, 1, 5])
    x = network.norm(network.items.weight[items] + network.positions[-4:])
    for attention, residuals in zip(network.attention, network.residuals, strict=True):
        q, k, v = attention.query(x), attention.key(x), attention.value(x)
        read = torch.zeros(4, 8)
        for head in (slice(0, 4), slice(4, 8)):
            for i in range(4):
                past = slice(0, i + 1)
                read[i, head] = (k[past, head] @ q[i, head] / 4**0.5).softmax(0) @ v[past, head]
        x = residuals.norm_attention(x + attention.output(read))
        inner = residuals.feed_forward.inner(x)
        outer = residuals.feed_forward.outer(inner * (1 + torch.erf(inner / 2**0.5)) / 2)
        x = residuals.norm_feed_forward(x + outer)
    torch.testing.assert_close(network(items[None])[0], x, rtol=1e-4, atol=1e-4)


def test_denoiser_knows_the_step():
    denoiser = learner().module.denoiser.eval()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x, real = torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    early, late = (denoiser(x, torch.tensor([step]), real) for step in (5, 900))
    assert (early - late).abs().max() > 1e-3


def test_the_whole_loss_weighs_its_terms():
    terms = learner(contrast_weight=0.7, denoise_weight=0.3, mask_rate=0.5).loss(first_batch(learner()))
    expected = terms["recommendation"] + 0.3 * terms["denoising"] + 0.7 * terms["contrast"]
    torch.testing.assert_close(terms["loss"], expected)


def test_recommender_is_causal():
    network = learner().module.eval()
    first, second = network(torch.tensor([[1, 2, 3, 4]])), network(torch.tensor([[1, 2, 3, 9]]))
    torch.testing.assert_close(first[:, :3], second[:, :3], rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_heads": 3},
        {"mask_rate": 0.0},
        {"num_candidates": 21},
        {"num_steps": 1},
        {"contrast_weight": -1.0},
        {"learning_rate": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        learner(**wrong)
