"""The schedules have the values that the printed formula and the released code give."""

import numpy as np
import pytest
import torch

from aligndiff import schedule
from aligndiff.config import Config, read_config


def test_paper_schedule_at_32_steps():
    beta = schedule.betas(Config())
    assert beta[0] == pytest.approx(0.125)  # the text says 0.9
    assert beta.max() == pytest.approx(0.725)
    assert beta[24] == beta.max() and beta[25] == pytest.approx(0.09)
    process = schedule.target_process(Config())
    assert process.alpha_bar_T[-1] == pytest.approx(1.3e-7, rel=0.05)
    assert (process.alpha_bar_T > 0.01).sum() == 13


def test_thousand_steps_are_refused():
    with pytest.raises(ValueError, match="num_steps"):
        schedule.target_process(Config(num_steps=1000))
    beta = schedule.paper_schedule(1000, 0.1, 0.9, 0.8)
    alpha_bar = np.cumprod(1 - beta)
    assert (alpha_bar > 0.01).sum() == 37
    assert np.log10(alpha_bar[-1]) == pytest.approx(np.log10(6e-218), abs=0.1)


def test_released_schedule_at_32_steps():
    process = schedule.target_process(read_config({"variant": "released"}))
    assert process.beta_T[[0, -1]] == pytest.approx([0.013125, 0.635])
    assert process.alpha_bar_T[[0, 1, 7, 15, 23, 31]] == pytest.approx(
        [0.986875, 0.954125, 0.493516, 0.051983, 0.000805, 9.9e-7], rel=6e-3
    )
    assert process.posterior.from_x0[[0, 1, 15]] == pytest.approx([1, 0.718628, 0.091188], rel=1e-4)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_forward_moments(variant):
    process = schedule.target_process(read_config({"variant": variant}))
    x_0, step = torch.tensor([[2.0, -1.0]]).expand(200_000, 2), 7
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    x_t = process.diffuse(x_0, torch.full((len(x_0),), step), noise)
    alpha_bar = process.alpha_bar_T[step]
    torch.testing.assert_close(x_t.mean(0), alpha_bar**0.5 * x_0[0], atol=0.01, rtol=0)
    torch.testing.assert_close(x_t.var(0), torch.full((2,), 1 - alpha_bar), atol=0.01, rtol=0, check_dtype=False)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_posterior_identities(variant):
    process = schedule.target_process(read_config({"variant": variant}))
    before = np.concatenate([[1.0], process.alpha_bar_T[:-1]])
    posterior = process.posterior
    assert posterior.from_x0[0] == pytest.approx(1) and posterior.from_xt[0] == pytest.approx(0)
    mean = posterior.from_x0 + posterior.from_xt * np.sqrt(process.alpha_bar_T)
    np.testing.assert_allclose(mean, np.sqrt(before), rtol=1e-10)
    # Law of total variance: noise of x_t passed on, plus the posterior's own, is the noise of x_{t-1}.
    total = posterior.from_xt**2 * (1 - process.alpha_bar_T) + posterior.variance
    np.testing.assert_allclose(total, 1 - before, rtol=1e-9, atol=1e-12)


def test_first_step_and_energy_noise():
    assert schedule.alpha_0(Config()) == pytest.approx(1 - 0.125 / 32)
    assert schedule.alpha_0(Config(alpha_0=0.5)) == 0.5
    assert schedule.alpha_0(read_config({"variant": "released"})) == 1.0
    for config, gamma in ((Config(), 0.05), (Config(nu_reading="delta"), 0.1), (Config(nu=0.2), 0.2)):
        np.testing.assert_allclose(schedule.energy_process(config).beta_T, gamma * schedule.betas(config))
