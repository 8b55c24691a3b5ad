"""The Gaussian process: identities of the posterior, moments, and refusal of impossible schedules."""

import numpy as np
import pytest
import torch

from harness.gaussian import GaussianProcess, truncated_linear

PROCESS = GaussianProcess(truncated_linear(32))


def test_alpha_bar_is_the_running_product():
    expected, product = [], 1.0
    for beta in PROCESS.beta_T:
        product *= 1.0 - beta
        expected.append(product)
    np.testing.assert_allclose(PROCESS.alpha_bar_T, expected, rtol=1e-14)
    assert PROCESS.alpha_bar_T.dtype == np.float64


def test_the_truncated_linear_schedule_takes_another_end_where_its_own_would_exceed_one():
    np.testing.assert_allclose(truncated_linear(32)[[0, 1, -1]], [0.013125, 0.013125 + 0.621875 / 31, 0.635])
    assert truncated_linear(21)[-1] == pytest.approx(0.02 * 1000 / 21 + 0.01)
    assert truncated_linear(20)[-1] == pytest.approx(0.001 * 50 + 0.01)
    assert truncated_linear(5)[0] == pytest.approx(0.03)


def test_the_last_step_back_returns_the_prediction():
    posterior = PROCESS.posterior
    assert posterior.from_x0[0] == pytest.approx(1.0, abs=1e-14)
    assert posterior.from_xt[0] == 0.0 and posterior.variance[0] == 0.0


def test_posterior_mean_keeps_the_signal_path():
    """With x_t = sqrt(abar_t) x_0 the mean is sqrt(abar_{t-1}) x_0."""
    before = np.concatenate([[1.0], PROCESS.alpha_bar_T[:-1]])
    found = PROCESS.posterior.from_x0 + PROCESS.posterior.from_xt * np.sqrt(PROCESS.alpha_bar_T)
    np.testing.assert_allclose(found, np.sqrt(before), rtol=1e-12)


def test_posterior_agrees_with_bayes_rule():
    """Precisions add: prior N(sqrt(abar_{t-1}) x_0, 1 - abar_{t-1}), likelihood N(sqrt(alpha_t) x, beta_t)."""
    posterior, beta, bar = PROCESS.posterior, PROCESS.beta_T[1:], PROCESS.alpha_bar_T[:-1]
    variance = 1 / (1 / (1 - bar) + (1 - beta) / beta)
    np.testing.assert_allclose(posterior.variance[1:], variance, rtol=1e-12)
    np.testing.assert_allclose(posterior.from_x0[1:], variance * np.sqrt(bar) / (1 - bar), rtol=1e-12)
    np.testing.assert_allclose(posterior.from_xt[1:], variance * np.sqrt(1 - beta) / beta, rtol=1e-12)


def test_forward_moments():
    x_0 = torch.full((200_000, 1), 2.0)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    x_t = PROCESS.diffuse(x_0, torch.full((len(x_0),), 7), noise)
    bar = PROCESS.alpha_bar_T[7]
    assert float(x_t.mean()) == pytest.approx(2 * np.sqrt(bar), abs=0.01)
    assert float(x_t.var()) == pytest.approx(1 - bar, abs=0.01)


def test_each_row_is_noised_by_its_own_step():
    x_0, noise = torch.ones(3, 2), torch.zeros(3, 2)
    found = PROCESS.diffuse(x_0, torch.tensor([0, 15, 31]), noise)
    expected = torch.from_numpy(np.sqrt(PROCESS.alpha_bar_T[[0, 15, 31]])).float()[:, None].expand(3, 2)
    torch.testing.assert_close(found, expected)
    found = PROCESS.diffuse(noise, torch.tensor([0, 15, 31]), x_0)
    torch.testing.assert_close(found, (1 - expected.double() ** 2).sqrt().float())


def test_tables_move_with_the_module_but_are_not_weights():
    assert PROCESS.state_dict() == {}
    assert list(PROCESS.parameters()) == []
    assert {name for name, _ in PROCESS.named_buffers()} == {"signal", "noise_std"}


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.2, float("nan")])
def test_betas_outside_zero_and_one_are_refused(beta):
    with pytest.raises(ValueError, match="schedule: betas span"):
        GaussianProcess(np.array([0.1, beta, 0.2]))


def test_a_schedule_that_underflows_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="num_steps: with 1000 steps alpha_bar falls to .* take fewer steps"):
        GaussianProcess(np.linspace(0.1, 0.9, 1000))


def test_one_step_is_enough():
    process = GaussianProcess(np.array([0.3]))
    assert process.posterior.from_x0.tolist() == pytest.approx([1.0], abs=1e-14)
