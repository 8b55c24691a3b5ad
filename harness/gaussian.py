"""The Gaussian diffusion process: schedules, forward moments, posterior. Tables are float64.

Steps are indices 0..T-1; index 0 means one step of noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def truncated_linear(num_steps: int) -> NDArray[np.float64]:
    """The betas that DiffuRec calls "trunc_lin": linear, its ends scaled by 1000 / T and raised by 0.01.  -> [T]

    Nothing is truncated when T > 20; below that the last beta would exceed 1 and another is taken.
    """
    scale = 1000 / num_steps
    last = 0.02 * scale + 0.01
    return np.linspace(0.0001 * scale + 0.01, last if last <= 1 else 0.001 * scale + 0.01, num_steps)


@dataclass(frozen=True)
class Posterior:
    """q(x_{t-1} | x_t, x_0) = N(from_x0 x_0 + from_xt x_t, variance I).  Each [T]"""

    from_x0: NDArray[np.float64]
    from_xt: NDArray[np.float64]
    variance: NDArray[np.float64]


class GaussianProcess(nn.Module):
    """Noise added to a clean vector in T steps, and what is known about the way back.

    beta_T: variance added at each step, each in (0, 1).
    Raises ValueError if a beta is out of range or so little signal is left after T steps that it underflows.
    """

    def __init__(self, beta_T: NDArray[np.float64]) -> None:
        super().__init__()
        beta_T = np.asarray(beta_T, dtype=np.float64)
        if not ((beta_T > 0) & (beta_T < 1)).all():
            raise ValueError(f"schedule: betas span {beta_T.min():.4g}..{beta_T.max():.4g}, legal are between 0 and 1")
        alpha_bar_T = np.cumprod(1.0 - beta_T)
        if alpha_bar_T[-1] < np.finfo(np.float32).tiny:
            raise ValueError(
                f"num_steps: with {len(beta_T)} steps alpha_bar falls to {alpha_bar_T[-1]:.2g}, which is 0 in float32; "
                "take fewer steps or smaller betas"
            )
        self.num_steps = len(beta_T)
        self.beta_T, self.alpha_bar_T = beta_T, alpha_bar_T
        before_T = np.concatenate([[1.0], alpha_bar_T[:-1]])
        self.posterior = Posterior(
            from_x0=beta_T * np.sqrt(before_T) / (1.0 - alpha_bar_T),
            from_xt=(1.0 - before_T) * np.sqrt(1.0 - beta_T) / (1.0 - alpha_bar_T),
            variance=beta_T * (1.0 - before_T) / (1.0 - alpha_bar_T),
        )
        self._buffer("signal", np.sqrt(alpha_bar_T))
        self._buffer("noise_std", np.sqrt(1.0 - alpha_bar_T))

    def _buffer(self, name: str, table: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(table).float(), persistent=False)

    def diffuse(self, x_0: Tensor, t_B: Tensor, noise: Tensor) -> Tensor:
        """Draw x_t given x_0.  [B, D], [B] in 0..T-1, [B, D] -> [B, D]"""
        return self.signal[t_B][:, None] * x_0 + self.noise_std[t_B][:, None] * noise
