"""Energy, score and the losses around them."""

import numpy as np
import pytest
import torch
from torch import nn

from aligndiff import losses
from aligndiff.energy import score
from harness.packing import Packing
from tests.aligndiff import toys


def energy_of(**settings):
    net = toys.learner(**toys.STILL, **settings).module
    token_ND = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))
    history = torch.tensor([[1, 2, 3, 4], [0, 0, 3, 4], [0, 0, 0, 4]])
    return net.energy, net.energy.remember(token_ND, Packing([history]))


KINDS = [{"energy_layers": 3}, {"energy_layers": 6}, {"energy": "transformer"}, {"energy_activation": "elu_gelu"}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_score_is_the_gradient_of_the_energy(kind):
    energy, memory = energy_of(**kind)
    energy = energy.double()
    memory = memory and type(memory)(memory.keys.double(), memory.values.double(), memory.mask)
    x = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    analytic = torch.autograd.grad(energy(x.requires_grad_(), memory).sum(), x)[0]
    step = 1e-5
    for feature in (0, 7, 15):
        shift = torch.zeros(16, dtype=torch.float64)
        shift[feature] = step
        with torch.no_grad():
            difference = (energy(x + shift, memory) - energy(x - shift, memory)) / (2 * step)
        torch.testing.assert_close(analytic[:, feature], difference, rtol=1e-6, atol=1e-9)
    energy = energy.float()
    memory = memory and type(memory)(memory.keys.float(), memory.values.float(), memory.mask)
    with torch.no_grad():
        got = score(energy, x.detach().float(), memory)
    torch.testing.assert_close(got, analytic.float(), rtol=1e-4, atol=1e-6)
    assert not got.requires_grad


def test_one_layer_has_the_same_score_everywhere():
    energy, _ = energy_of(energy_layers=1)
    both = score(energy, torch.randn(2, 16))
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_energy_is_fp32_under_autocast(kind):
    energy, _ = energy_of(**kind)
    x, token_ND, packing = torch.randn(2, 16), torch.randn(6, 16), Packing([torch.ones(2, 3, dtype=torch.long)])

    def values():
        memory = energy.remember(token_ND, packing)
        return torch.cat([energy(x, memory), score(energy, x, memory).flatten()])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = values()
    torch.testing.assert_close(inside, values(), rtol=0, atol=0)


@pytest.mark.parametrize("alignment", ["score_matching", "released"])
def test_second_order_gradients_reach_energy_and_predictor(alignment):
    learner = toys.learner(alignment=alignment)
    noise = learner.draw(24)
    learner.terms(toys.batch(learner), noise)["alignment"].backward()
    net = learner.module
    assert net.energy.layers[0].weight.grad.abs().sum() > 0
    assert net.denoiser.blocks[0].feed_forward.inner.weight.grad.abs().sum() > 0
    assert net.items.weight.grad.abs().sum() > 0


def test_eq_13_has_a_trivial_minimum_at_a_flat_energy():
    learner = toys.learner()
    for parameter in learner.module.energy.parameters():
        parameter.data.zero_()
    terms = learner.terms(toys.batch(learner), learner.draw(24))
    assert terms["alignment"] == 0 and terms["correction_ratio"] == 0
    zero, sigma2 = torch.zeros(4, 8), torch.tensor([1e-9, 0.1, 0.5, 1.0])
    assert losses.score_matching(zero, zero, sigma2, floor=1e-4).sum() == 0


def test_eq_13_by_hand_and_its_guard():
    s_x, s_y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    # sigma^2 = 1/2: target = 2 (s_y - s_x) + s_x / 2 = (-3/2, 4); difference (5/2, -4); half its square 11.125
    assert losses.score_matching(s_x, s_y, torch.tensor([0.5]), floor=1e-4).item() == pytest.approx(11.125)
    guarded = losses.score_matching(s_x, s_y, torch.tensor([0.0]), floor=0.5)
    assert guarded.item() == pytest.approx(11.125)


def test_released_loss_pulls_the_gradient_towards_the_target():
    x, y, sigma2 = torch.randn(5, 8), torch.randn(5, 8), torch.full((5,), 0.2)
    best = (y - x) / 0.8
    assert losses.released_score_matching(x, best, y, sigma2).max() < 1e-10
    away = losses.released_score_matching(x, -best, y, sigma2)
    assert (away > losses.released_score_matching(x, 0 * best, y, sigma2)).all()


def test_correction_of_a_trained_released_model_points_away_and_turned_towards():
    for sign, expected in (("minus", -1), ("plus", 1)):
        learner = toys.learner(variant="released", correction_sign=sign, learning_rate=0.003, eta=1.0)
        for _ in range(12):
            for batch in learner.batches():
                terms = learner.training_step(batch)
        assert np.sign(terms["correction_cosine"].item()) == expected
        assert abs(terms["correction_cosine"].item()) > 0.1


def test_released_loss_does_not_pull_the_prediction_itself():
    """x~ stands in the residual behind a stop-gradient: it moves through g = S(x~) alone."""
    x, y, g = torch.randn(5, 8, requires_grad=True), torch.randn(5, 8), torch.randn(5, 8)
    assert not losses.released_score_matching(x, g, y, torch.full((5,), 0.2)).requires_grad


def test_transformer_energy_does_not_read_padding():
    energy, memory = energy_of(energy="transformer")
    x, token_ND = torch.randn(3, 16), torch.randn(12, 16, generator=torch.Generator().manual_seed(1))
    alone = energy.remember(token_ND[10:], Packing([torch.tensor([[3, 4]])]))  # the last two tokens of the third row
    third = energy.remember(token_ND, Packing([torch.tensor([[1, 2, 3, 4], [0, 0, 3, 4], [0, 0, 3, 4]])]))
    torch.testing.assert_close(energy(x, third)[2:], energy(x[2:], alone))
    assert (energy(x, memory)[2] - energy(x, third)[2]).abs() > 1e-6  # with one item less it is another energy


class FirstFeature(nn.Module):
    """E(x) = x_1, or half the squared length, in place of a network."""

    def __init__(self, *, bowl=False):
        super().__init__()
        self.bowl = bowl

    def forward(self, x, memory=None):
        return x.square().sum(-1) / 2 if self.bowl else x[:, 0]


def test_rival_losses_want_low_energy_for_the_true_and_high_for_the_predicted():
    fake, real, mix = torch.tensor([[5.0, 0.0]]), torch.tensor([[-4.0, 0.0]]), torch.tensor([0.5])
    critic, predictor = losses.wgan_gp(FirstFeature(), fake, real, None, penalty=10.0, mix_B=mix)
    assert critic.item() == pytest.approx(-4.0 - 5.0) and predictor.item() == pytest.approx(5.0)
    critic, predictor = losses.adversarial(FirstFeature(), fake, real, None)
    softplus = torch.nn.functional.softplus
    assert critic.item() == pytest.approx((softplus(real[0, 0]) + softplus(-fake[0, 0])).item())
    assert predictor.item() == pytest.approx(
        softplus(fake[0, 0]).item()
    )  # steep where the critic is sure: no saturation


def test_gradient_penalty_is_taken_between_the_two():
    fake, real, mix = torch.randn(6, 3), torch.randn(6, 3), torch.rand(6)
    energy = FirstFeature(bowl=True)  # its gradient at x is x
    with_penalty, _ = losses.wgan_gp(energy, fake, real, None, penalty=10.0, mix_B=mix)
    without, _ = losses.wgan_gp(energy, fake, real, None, penalty=0.0, mix_B=mix)
    between = fake + mix[:, None] * (real - fake)
    torch.testing.assert_close(with_penalty - without, 10 * (between.norm(dim=-1) - 1).square())


@pytest.mark.parametrize("energy", ["mlp", "transformer"])
@pytest.mark.parametrize("alignment", ["wgan_gp", "adversarial"])
def test_rival_losses_keep_the_two_sides_apart(alignment, energy):
    """The critic's loss moves the energy alone; the predictor's term moves everything but the energy."""
    learner = toys.learner(alignment=alignment, energy=energy)
    batch, noise = toys.batch(learner), learner.draw(24)
    for name, moved, still in (("alignment", "denoiser", "energy"), ("critic", "energy", "denoiser")):
        learner.module.zero_grad(set_to_none=True)
        learner.terms(batch, noise)[name].backward()
        norms = {
            part: sum(p.grad.abs().sum() for p in getattr(learner.module, part).parameters() if p.grad is not None)
            for part in ("denoiser", "energy")
        }
        assert norms[moved] > 0 and norms[still] == 0


def test_gradient_penalty_vanishes_at_unit_slope():
    energy, _ = energy_of(energy_layers=1)
    weight = energy.layers[0].weight
    weight.data /= weight.data.norm()
    fake, real = torch.randn(4, 16), torch.randn(4, 16)
    with_penalty, _ = losses.wgan_gp(energy, fake, real, None, penalty=10.0, mix_B=torch.rand(4))
    without, _ = losses.wgan_gp(energy, fake, real, None, penalty=0.0, mix_B=torch.rand(4))
    torch.testing.assert_close(with_penalty, without, atol=1e-5, rtol=1e-5)
