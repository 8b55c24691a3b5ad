"""What pulls the predicted distribution towards the true one: eq 13, the released loss, and Table 7's rivals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from aligndiff.energy import Energy, Memory, score


def score_matching(score_x_BD: Tensor, score_y_BD: Tensor, sigma2_B: Tensor, *, floor: float) -> Tensor:
    """Per-sample 1/2 || S(x~) - ((S(y_s) - S(x~)) / sigma^2 + S(x~) sigma^2) ||^2.  [B]

    Source: eq 13. It has a trivial minimum: S = 0 everywhere makes it 0 whatever the data.
    """
    sigma2_B1 = sigma2_B.clamp(min=floor)[:, None]
    target_BD = (score_y_BD - score_x_BD) / sigma2_B1 + score_x_BD * sigma2_B1
    return 0.5 * (score_x_BD - target_BD).square().sum(-1)


def released_score_matching(x_BD: Tensor, score_x_BD: Tensor, y_BD: Tensor, sigma2_B: Tensor) -> Tensor:
    """Per-sample || g - ((y_s - sg(x~)) + g sigma^2) ||^2 with g = S(x~).  [B]

    Source: released AlignDiff.py. Smallest at g = (y_s - x~) / (1 - sigma^2): g points towards y_s, while inference
    subtracts it.
    """
    target_BD = (y_BD - x_BD.detach()) + score_x_BD * sigma2_B[:, None]
    return (score_x_BD - target_BD).square().sum(-1)


def frozen_energy(energy: Energy, x_BD: Tensor, memory: Memory | None) -> Tensor:
    """E(x) whose gradient reaches x but not the energy's weights: the predictor's side of a game.  [B]"""
    weights = {name: parameter.detach() for name, parameter in energy.named_parameters()}
    if memory is not None:  # the energy's weights have made it, too
        memory = Memory(*(part.detach() for part in memory))
    return functional_call(energy, weights, (x_BD, memory))


def wgan_gp(
    energy: Energy, fake_BD: Tensor, real_BD: Tensor, memory: Memory | None, *, penalty: float, mix_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Critic loss and predictor loss of GAD-GP, per sample.  [B], [B]

    Table 7 only names it. Ours: E is a critic, low on y_s and high on x~_0, with a gradient penalty on interpolates.
    mix_B: uniform draws that place the interpolates.
    """
    fake, real = fake_BD.detach(), real_BD.detach()
    between = torch.lerp(fake, real, mix_B[:, None]).requires_grad_()
    slope_B = score(energy, between, memory, create_graph=True).norm(dim=-1)
    critic_B = energy(real, memory) - energy(fake, memory) + penalty * (slope_B - 1).square()
    return critic_B, frozen_energy(energy, fake_BD, memory)


def adversarial(energy: Energy, fake_BD: Tensor, real_BD: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """Discriminator loss and non-saturating predictor loss of GAD-Adv, per sample; the logit of "real" is -E.  [B], [B]

    Table 7 only names it; this is ours.
    """
    real_B, fake_B = energy(real_BD.detach(), memory), energy(fake_BD.detach(), memory)
    return F.softplus(real_B) + F.softplus(-fake_B), F.softplus(frozen_energy(energy, fake_BD, memory))
