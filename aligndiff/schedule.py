"""How much noise each step adds: the paper's schedule and the released one, for the target and for y_s.

Steps are indices 0..T-1; index i is step t = i + 1 of the paper.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aligndiff.config import Config
from harness.gaussian import GaussianProcess, truncated_linear


def paper_schedule(num_steps: int, beta_min: float, beta_max: float, tau: float) -> NDArray[np.float64]:
    """beta_t = beta_min + t / T (beta_max - beta_min) for t <= tau T, then beta_max / 10.

    Source: eq 5. Its text calls the early steps "high noise (0.9)"; the formula gives 0.125 there for T = 32.
    """
    t = np.arange(1, num_steps + 1, dtype=np.float64)
    rising = beta_min + t / num_steps * (beta_max - beta_min)
    return np.where(t <= tau * num_steps, rising, beta_max / 10)


def betas(config: Config) -> NDArray[np.float64]:
    if config.schedule == "paper":
        return paper_schedule(config.num_steps, config.beta_min, config.beta_max, config.tau)
    if config.schedule == "trunc_lin":
        return truncated_linear(config.num_steps)
    raise ValueError(f"schedule: {config.schedule!r} is not one of 'paper', 'trunc_lin'")


def target_process(config: Config) -> GaussianProcess:
    """x_0 -> x_t, eqs 5 and 6.  Raises ValueError if alpha_bar_T underflows, as it does at T = 1000."""
    return GaussianProcess(betas(config))


def energy_process(config: Config) -> GaussianProcess:
    """e_y -> y_s with beta' = gamma beta, eqs 8 and 9."""
    return GaussianProcess(config.energy_gamma * betas(config))


def alpha_0(config: Config) -> float:
    """Signal kept by the extra step e_y -> x_0. The paper gives no value; 1 - beta_1 / T is ours."""
    return 1.0 - betas(config)[0] / config.num_steps if config.alpha_0 is None else config.alpha_0
