"""The reverse process: equal to the equations, and each part the identity where it should be."""

import pytest
import torch

from aligndiff import sampler
from harness import streams
from harness.packing import Packing
from harness.streams import UserNoise
from tests.aligndiff import oracle, toys


def represent(learner, *, seed=0, count=5):
    history_BL, user_B = toys.histories(learner, count)
    learner.module.eval()
    return learner.represent(history_BL, user_B, UserNoise.single(count, history_BL.shape[1], seed=seed))


def largest(x):
    return x.abs().max().item()


def test_reverse_process_equals_the_equations():
    learner = toys.learner(correction=0.5, delta=0.1)
    learner.module.eval()
    history_BL, _ = toys.histories(learner)
    expected = oracle.reverse(learner.module, history_BL, UserNoise.single(5, history_BL.shape[1]))
    got = represent(learner)
    assert largest(got - expected) / largest(expected) < 1e-5
    assert largest(got - represent(toys.learner(correction=0.0, delta=0.1))) > 1e-4  # the energy took part


def test_zero_guidance_weight_is_the_conditional_pass():
    learner = toys.learner(guidance_weight=0.0, diffusion=False, correction=0.0)
    net = learner.module.eval()
    history_BL, _ = toys.histories(learner)
    packing = Packing([history_BL])
    embedded = net.items(packing.item_N)
    z_ND = net.modulate(net.tokens(embedded), net.guide(embedded, packing), packing)
    conditional = net.denoiser.finish(net.denoiser.hidden(z_ND, packing))
    torch.testing.assert_close(represent(learner), conditional, rtol=1e-5, atol=1e-6)


def test_small_weight_comes_close_to_zero_weight_and_both_branches_share_lambda():
    none, little = represent(toys.learner(guidance_weight=0.0)), represent(toys.learner(guidance_weight=1e-4))
    assert 0 < largest(little - none) < 1e-2


def test_guided_prediction_uses_the_null_vector_or_no_h():
    learner = toys.learner(diffusion=False, correction=0.0)
    before = represent(learner)
    learner.module.null.data += 1
    assert largest(represent(learner) - before) > 1e-3
    learner = toys.learner(diffusion=False, correction=0.0, null_branch="absent")
    before = represent(learner)
    learner.module.null.data += 1
    assert largest(represent(learner) - before) == 0


@pytest.mark.parametrize("at", ["every_step", "final"])
def test_omega_zero_is_the_identity(at):
    without = represent(toys.learner(correction=0.0, correction_at=at))
    flat = toys.learner(correction=5.0, correction_at=at)
    for parameter in flat.module.energy.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(represent(flat), without, rtol=0, atol=0)
    x = torch.randn(3, 16)
    assert not sampler.correction(toys.learner(correction=0.0).module, x, None).any()


def test_correction_follows_the_gradient_step_by_step():
    x = torch.randn(3, 16)
    once, twice = (toys.learner(correction=0.5, correction_steps=steps).module.eval() for steps in (1, 2))
    first = sampler.correction(once, x, None)
    torch.testing.assert_close(sampler.correction(twice, x, None), first + sampler.correction(once, x + first, None))
    turned = toys.learner(correction=0.5, correction_sign="plus").module.eval()
    torch.testing.assert_close(sampler.correction(turned, x, None), -first)


def test_a_correction_below_rounding_is_still_measured():
    """x + change equals x in float32; the probe must not report that as nothing."""
    x = torch.randn(3, 16)
    net = toys.learner(correction=1e-12).module.eval()
    change = sampler.correction(net, x, None)
    assert (x + change).equal(x) and change.any()
    torch.testing.assert_close(change, 1e-12 * sampler.correction(toys.learner(correction=1.0).module.eval(), x, None))


def test_a_constant_prediction_comes_out_of_the_chain(monkeypatch):
    learner = toys.learner(correction=0.0)
    constant = torch.randn(5, 16)
    monkeypatch.setattr(sampler.Predictor, "__call__", lambda self, mixed: constant)
    torch.testing.assert_close(represent(learner), constant, rtol=0, atol=0)


def test_noise_has_the_posterior_standard_deviation():
    net = toys.learner().module
    variance = torch.from_numpy(net.target_process.posterior.variance)
    torch.testing.assert_close(sampler.noise_std(net), variance.sqrt())
    released = toys.learner(variant="released").module
    torch.testing.assert_close(sampler.noise_std(released), torch.from_numpy(released.target_process.beta_T).sqrt())


def test_lambda_has_mean_and_standard_deviation_delta():
    for spread, std in (("std", 0.04), ("variance", 0.2)):
        net = toys.learner(delta=0.04, lambda_spread=spread, embedding_dim=64).module
        drawn = sampler.draw_lambda(net, UserNoise.single(500, 12), Packing([torch.ones(500, 12)]))
        assert drawn.mean().item() == pytest.approx(0.04, abs=2e-3)
        assert drawn.std().item() == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_chunks_of_blocks_do_not_matter(monkeypatch, variant):
    learner, found = toys.learner(variant=variant), []
    learner.module.eval()
    history_BL, user_B = toys.histories(learner, 5)
    for tokens in (1, 10**6):
        monkeypatch.setattr(streams, "TOKENS_AT_ONCE", tokens)
        noise = UserNoise([torch.Generator().manual_seed(seed) for seed in range(3)], [2, 2, 1], [12, 12, 12])
        found.append(learner.represent(history_BL, user_B, noise))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
