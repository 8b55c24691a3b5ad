"""The reverse process of eq 11: guided prediction, energy correction, one step back, T times."""

from __future__ import annotations

import torch
from torch import Tensor

from aligndiff.energy import Memory, score
from aligndiff.network import AlignDiff
from harness.streams import UserNoise

TOKENS_AT_ONCE = 2048  # on a CPU, so that the activations of a group of rows stay in its cache

Trace = list[tuple[Tensor, Tensor]]  # x~_0 and x^_0 [B, D] of each application of the correction


class Predictor:
    """x~_0 for one batch of histories; what does not depend on t is computed once."""

    def __init__(self, net: AlignDiff, history_BL: Tensor, h_BD: Tensor | None) -> None:
        config = net.config
        self.net, self.history_BL = net, history_BL
        self.token_BLD = net.tokens(net.items(history_BL))
        self.branches = [net.modulate(self.token_BLD, h_BD)]
        self.weight = config.guidance_weight if h_BD is not None else 0.0
        if self.weight > 0:
            self.branches.append(self.unconditional())

    def unconditional(self) -> Tensor:
        """Modulated tokens of the pass without condition: the learned null vector, or no h at all (released)."""
        if self.net.config.null_branch == "learned":
            return self.net.modulate(self.token_BLD, self.net.null[None])
        if self.net.config.null_branch == "absent":
            return self.token_BLD
        raise ValueError(f"null_branch: {self.net.config.null_branch!r} is not one of 'learned', 'absent'")

    def alone(self, branch_BLD: Tensor) -> Tensor:
        """x~_0 of one branch in a single pass without x_t, d_t and lambda.  [B, D]"""
        return self.net.denoiser.finish(self.net.denoiser.hidden(branch_BLD, self.history_BL))

    def __call__(self, noisy_BD: Tensor | None, lambda_BLD: Tensor | None) -> Tensor:
        """(1 + w) f(x_t, h) - w f(x_t, null), both branches in one pass and with the same lambda.  [B, D]"""
        size, length = self.history_BL.shape
        rows = size if self.history_BL.is_cuda else max(1, TOKENS_AT_ONCE // (length * len(self.branches)))
        return torch.cat([self._rows(slice(i, i + rows), noisy_BD, lambda_BLD) for i in range(0, size, rows)])

    def _rows(self, rows: slice, noisy_BD: Tensor | None, lambda_BLD: Tensor | None) -> Tensor:
        z_BLD = torch.stack([branch[rows] for branch in self.branches])
        if noisy_BD is not None and lambda_BLD is not None:
            z_BLD = z_BLD + lambda_BLD[rows] * noisy_BD[rows, None]
        history_BL = self.history_BL[rows].repeat(len(self.branches), 1)
        hidden = self.net.denoiser.hidden(z_BLD.flatten(0, 1), history_BL).unflatten(0, (len(self.branches), -1))
        if self.net.config.guide_on == "output":
            return self._combine(self.net.denoiser.finish(hidden))
        if self.net.config.guide_on == "hidden":
            return self.net.denoiser.finish(self._combine(hidden))
        raise ValueError(f"guide_on: {self.net.config.guide_on!r} is not one of 'output', 'hidden'")

    def _combine(self, branches: Tensor) -> Tensor:
        return branches[0] if len(branches) == 1 else (1 + self.weight) * branches[0] - self.weight * branches[1]


def correct(net: AlignDiff, x_BD: Tensor, memory: Memory | None) -> Tensor:
    """x^_0 = x~_0 - Omega S(x~_0), repeated `correction_steps` times; the identity without energy or with Omega 0."""
    config = net.config
    if net.energy is None or config.correction == 0:
        return x_BD
    if config.correction_sign not in ("minus", "plus"):
        raise ValueError(f"correction_sign: {config.correction_sign!r} is not one of 'minus', 'plus'")
    omega = config.correction if config.correction_sign == "minus" else -config.correction
    for _ in range(config.correction_steps):
        x_BD = x_BD - omega * score(net.energy, x_BD, memory)
    return x_BD


def draw_lambda(net: AlignDiff, noise: UserNoise, length: int) -> Tensor:
    """lambda_i ~ N(delta, delta) per sample, position and feature.  [B, L, D]"""
    config = net.config
    normal_BLD = noise.normal_per_position(length, config.embedding_dim, full=config.reads_padding)
    return config.lambda_mean + config.lambda_std * normal_BLD


def noise_std(net: AlignDiff) -> Tensor:
    """Standard deviation of eps' at each step, [T]. Eq 11 prints the variance beta~_t where this must stand."""
    process = net.target_process
    if net.config.reverse_variance == "posterior":
        variance = process.posterior.variance
    elif net.config.reverse_variance == "beta":
        variance = process.beta_T
    else:
        raise ValueError(f"reverse_variance: {net.config.reverse_variance!r} is not one of 'posterior', 'beta'")
    return torch.from_numpy(variance).sqrt()


def generate(
    net: AlignDiff, history_BL: Tensor, h_BD: Tensor | None, noise: UserNoise, trace: Trace | None = None
) -> Tensor:
    """The generated x^_0 after the whole chain, from which items are ranked.  [B, L], [B, D] -> [B, D]"""
    config = net.config
    predict = Predictor(net, history_BL, h_BD)
    memory = net.energy.remember(predict.token_BLD, history_BL > 0) if net.energy else None

    def apply_correction(x_BD: Tensor) -> Tensor:
        corrected_BD = correct(net, x_BD, memory)
        if trace is not None:
            trace.append((x_BD, corrected_BD))
        return corrected_BD

    if config.correction_at not in ("every_step", "final"):
        raise ValueError(f"correction_at: {config.correction_at!r} is not one of 'every_step', 'final'")
    if not config.diffusion:
        return apply_correction(predict(None, None))
    posterior, std_T = net.target_process.posterior, noise_std(net)
    x_BD = noise.normal(config.embedding_dim)
    for step in reversed(range(config.num_steps)):
        step_B = torch.full((len(x_BD),), step, device=x_BD.device)
        x_0_BD = predict(net.noisy(x_BD, step_B), draw_lambda(net, noise, history_BL.shape[1]))
        if config.correction_at == "every_step":
            x_0_BD = apply_correction(x_0_BD)
        x_BD = float(posterior.from_x0[step]) * x_0_BD + float(posterior.from_xt[step]) * x_BD
        if step > 0:
            x_BD = x_BD + float(std_T[step]) * noise.normal(config.embedding_dim)
    return apply_correction(x_BD) if config.correction_at == "final" else x_BD
