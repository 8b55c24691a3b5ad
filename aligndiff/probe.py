"""Does each part do anything? What correction, guidance and chain change, user by user."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aligndiff import losses, sampler
from aligndiff.energy import Memory, score
from aligndiff.network import AlignDiff
from harness.packing import Packing
from harness.streams import UserNoise


def correction_terms(before_BD: Tensor, change_BD: Tensor, target_BD: Tensor) -> dict[str, Tensor]:
    """Size and direction of a correction x^ - x~, per sample.

    correction_ratio:         || x^ - x~ || / || x~ ||, i.e. || Omega S(x~) || / || x~ || for one step
    correction_cosine:        of x^ - x~ with e_y - x~; positive means towards the target
    correction_cosine_across: of their parts across x~. Along x~ a correction only makes all scores larger or smaller;
        where e_y is much shorter than x~, the cosine above sees hardly anything else
    """
    way_BD = target_BD - before_BD
    return {
        "correction_ratio": change_BD.norm(dim=-1) / before_BD.norm(dim=-1),
        "correction_cosine": cosine(change_BD, way_BD),
        "correction_cosine_across": cosine(across(change_BD, before_BD), across(way_BD, before_BD)),
    }


def across(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """The part of a that is orthogonal to b, per row, in float64; zero where float32 could not tell it from nothing."""
    a_BD, along_BD = a_BD.double(), F.normalize(b_BD.double(), dim=-1)
    part_BD = a_BD - (a_BD * along_BD).sum(-1, keepdim=True) * along_BD
    return part_BD * (part_BD.norm(dim=-1, keepdim=True) > 1e-6 * a_BD.norm(dim=-1, keepdim=True))


def cosine(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Cosine per row, 0 for a zero vector; in float64, because the gradient of a flat energy is tiny."""
    a_BD, b_BD = (F.normalize(x_BD.double(), dim=-1, eps=1e-300) for x_BD in (a_BD, b_BD))
    return (a_BD * b_BD).sum(-1).float()


def relative_change(new_BD: Tensor, old_BD: Tensor) -> Tensor:
    return (new_BD - old_BD).norm(dim=-1) / old_BD.norm(dim=-1)


def inspect(
    net: AlignDiff,
    packing: Packing,
    h_BD: Tensor | None,
    noise: UserNoise,
    target_B: Tensor,
    other_BD: Tensor | None = None,
) -> dict[str, Tensor]:
    """Values [B] at inference for known targets, besides those of `correction_terms` and `energy_terms`.

    other_BD is the h of another user for each.

    cross_entropy:   of the scores that are ranked
    padding_above:   1 where padding would outrank the target (the released code ranks padding too)
    predicted_norm:  || x~_0 || at the end of the chain, beside target_norm: || e_y ||
    chain_change:    relative change from one guided pass without x_t, d_t and lambda to the last x~_0 of the chain
    guidance_change: relative change of a conditional pass without them when h is replaced by the null condition
    guidance_change_of_another: the same when it is replaced by other_BD: an h that is the same for all changes nothing
    """
    trace: sampler.Trace = []
    final_BD = sampler.generate(net, packing, h_BD, noise, trace)
    with torch.autocast(final_BD.device.type, enabled=False):  # in fp32, as the scores that are ranked
        logit_BI = final_BD.float() @ net.items.weight.float().T
    embedding_BD = net.items(target_B)
    result = {"padding_above": (logit_BI[:, :1] >= logit_BI.gather(1, target_B[:, None]))[:, 0].float()}
    if not net.config.padding_class:
        logit_BI[:, 0] = -torch.inf
    result["cross_entropy"] = F.cross_entropy(logit_BI, target_B, reduction="none")
    result |= {"predicted_norm": trace[-1][0].norm(dim=-1), "target_norm": embedding_BD.norm(dim=-1)}
    predict = sampler.Predictor(net, packing, h_BD)
    result["chain_change"] = relative_change(trace[-1][0], predict(None))
    if h_BD is not None:
        conditional_BD = predict.alone(predict.branches[0])
        result["guidance_change"] = relative_change(predict.alone(predict.unconditional()), conditional_BD)
        if other_BD is not None:
            of_another_BD = predict.alone(net.modulate(predict.token_ND, other_BD, packing))
            result["guidance_change_of_another"] = relative_change(of_another_BD, conditional_BD)
    if net.energy is not None:
        applied = [correction_terms(before, change, embedding_BD) for before, change in trace]
        for name, last_B in applied[-1].items():
            result |= {name: torch.stack([terms[name] for terms in applied]).mean(0), f"{name}_last": last_B}
        memory = net.energy.remember(predict.token_ND, packing)
        result |= energy_terms(net, memory, trace[-1][0], embedding_BD, noise)
    return result


def energy_terms(
    net: AlignDiff, memory: Memory | None, x_BD: Tensor, embedding_BD: Tensor, noise: UserNoise
) -> dict[str, Tensor]:
    """What the energy function makes of the last x~_0 and of y_s, the target noised at a random step.

    energy_gap:     E(x~_0) - E(y_s); positive if the true distribution has the lower energy
    score_matching: eq 13, or the released loss where that is trained
    """
    process = net.energy_process
    step_B = (torch.special.ndtr(noise.normal(1)[:, 0]) * process.num_steps).long().clamp(max=process.num_steps - 1)
    y_BD = process.diffuse(embedding_BD, step_B, noise.normal(x_BD.shape[1]))
    sigma2_B = process.noise_std[step_B].square()
    score_x, score_y = (score(net.energy, z, memory) for z in (x_BD, y_BD))
    if net.config.alignment == "released":
        matching_B = losses.released_score_matching(x_BD, score_x, y_BD, sigma2_B)
    else:
        matching_B = losses.score_matching(score_x, score_y, sigma2_B, floor=net.config.sigma2_floor)
    return {"energy_gap": net.energy(x_BD, memory) - net.energy(y_BD, memory), "score_matching": matching_B}
