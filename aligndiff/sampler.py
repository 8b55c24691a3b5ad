"""The reverse process of eq 11: guided prediction, energy correction, one step back, T times."""

from __future__ import annotations

import torch
from torch import Tensor

from aligndiff.energy import Memory, score
from aligndiff.network import AlignDiff
from harness.packing import Packing
from harness.streams import UserNoise

Trace = list[tuple[Tensor, Tensor]]  # x~_0 and x^_0 - x~_0 [B, D] of each application of the correction


class Predictor:
    """x~_0 for one batch of histories; what does not depend on t is computed once."""

    def __init__(self, net: AlignDiff, packing: Packing, h_BD: Tensor | None) -> None:
        config = net.config
        self.net, self.packing = net, packing
        self.token_ND = net.tokens(net.items(packing.item_N))
        self.branches = [net.modulate(self.token_ND, h_BD, packing)]
        self.weight = config.guidance_weight if h_BD is not None else 0.0
        if self.weight > 0:
            self.branches.append(self.unconditional())
        self.packing_of_branches = packing.repeated(len(self.branches))

    def unconditional(self) -> Tensor:
        """Modulated tokens of the pass without condition: the learned null vector, or no h at all (released)."""
        if self.net.config.null_branch == "learned":
            return (1 + self.net.null) * self.token_ND
        if self.net.config.null_branch == "absent":
            return self.token_ND
        raise ValueError(f"null_branch: {self.net.config.null_branch!r} is not one of 'learned', 'absent'")

    def alone(self, branch_ND: Tensor) -> Tensor:
        """x~_0 of one branch in a single pass without x_t, d_t and lambda.  [B, D]"""
        return self.net.denoiser.finish(self.net.denoiser.hidden(branch_ND, self.packing))

    def __call__(self, mixed_ND: Tensor | None) -> Tensor:
        """(1 + w) f(x_t, h) - w f(x_t, null), both branches in one pass; mixed is lambda (x_t + d_t).  [B, D]"""
        branches = self.branches if mixed_ND is None else [branch + mixed_ND for branch in self.branches]
        hidden = self.net.denoiser.hidden(torch.cat(branches), self.packing_of_branches)
        hidden = hidden.unflatten(0, (len(branches), -1))
        if self.net.config.guide_on == "output":
            return self._combine(self.net.denoiser.finish(hidden))
        if self.net.config.guide_on == "hidden":
            return self.net.denoiser.finish(self._combine(hidden))
        raise ValueError(f"guide_on: {self.net.config.guide_on!r} is not one of 'output', 'hidden'")

    def _combine(self, branches: Tensor) -> Tensor:
        return branches[0] if len(branches) == 1 else (1 + self.weight) * branches[0] - self.weight * branches[1]


def correction(net: AlignDiff, x_BD: Tensor, memory: Memory | None) -> Tensor:
    """x^_0 - x~_0 = - Omega S(x~_0), `correction_steps` times; zero without energy or with Omega 0.  [B, D]

    Not taken from x^_0, which rounds away what is shorter than 1e-8 of x~_0.
    """
    config = net.config
    change_BD = torch.zeros_like(x_BD)
    if net.energy is None or config.correction == 0:
        return change_BD
    if config.correction_sign not in ("minus", "plus"):
        raise ValueError(f"correction_sign: {config.correction_sign!r} is not one of 'minus', 'plus'")
    omega = config.correction if config.correction_sign == "minus" else -config.correction
    for _ in range(config.correction_steps):
        change_BD = change_BD - omega * score(net.energy, x_BD + change_BD, memory)
    return change_BD


def draw_lambda(net: AlignDiff, noise: UserNoise, packing: Packing) -> Tensor:
    """lambda_i ~ N(delta, delta) per token and feature.  [N, D]"""
    config = net.config
    normal_ND = noise.normal_per_token(packing, config.embedding_dim, full=config.reads_padding)
    return normal_ND.mul_(config.lambda_std).add_(config.lambda_mean)


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
    net: AlignDiff, packing: Packing, h_BD: Tensor | None, noise: UserNoise, trace: Trace | None = None
) -> Tensor:
    """The generated x^_0 after the whole chain, from which items are ranked.  [B, D]"""
    config = net.config
    predict = Predictor(net, packing, h_BD)
    memory = net.energy.remember(predict.token_ND, packing) if net.energy else None

    def apply_correction(x_BD: Tensor) -> Tensor:
        change_BD = correction(net, x_BD, memory)
        if trace is not None:
            trace.append((x_BD, change_BD))
        return x_BD + change_BD

    if config.correction_at not in ("every_step", "final"):
        raise ValueError(f"correction_at: {config.correction_at!r} is not one of 'every_step', 'final'")
    if not config.diffusion:
        return apply_correction(predict(None))
    posterior, std_T = net.target_process.posterior, noise_std(net)
    x_BD = noise.normal(config.embedding_dim)
    for step in reversed(range(config.num_steps)):
        noisy_BD = net.noisy(x_BD, torch.full((1,), step, device=x_BD.device))
        x_0_BD = predict(draw_lambda(net, noise, packing) * packing.spread(noisy_BD))
        if config.correction_at == "every_step":
            x_0_BD = apply_correction(x_0_BD)
        x_BD = float(posterior.from_x0[step]) * x_0_BD + float(posterior.from_xt[step]) * x_BD
        if step > 0:
            x_BD = x_BD + float(std_T[step]) * noise.normal(config.embedding_dim)
    return apply_correction(x_BD) if config.correction_at == "final" else x_BD
