"""STOSA's losses, gradients and scores, with the released encoder and with one that passes the mean on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from baselines import stosa
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import pad_left
from tests.parity import toys
from tests.parity.checkouts import importing
from tests.parity.exchange import INITIAL, Weights, exactly, relative_difference, scramble, visible_dropout

REPOSITORY, COMMIT = "zfan20/STOSA", "1f00ecb"

# The README's command for Beauty, on a CPU, without the spare mask row, with attention dropout.
OPTIONS = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.3,
    "initializer_range": 0.02,
    "max_seq_length": toys.MAX_LEN,
    "distance_metric": "wasserstein",
    "pvn_weight": 0.005,
    "kernel_param": 1.0,
    "item_size": toys.NUM_ITEMS + 1,
    "num_users": toys.NUM_USERS,
    "cuda_condition": False,
    "no_cuda": True,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "lr": 1e-3,
    "weight_decay": 0.0,
}
UNUSED = ("user_margins",)
# Names that the reference imports from its utils and has not got there; nothing calls them.
MISSING = ("get_user_performance_perpopularity", "get_item_performance_perpopularity")
MOMENTS = {"mean": "mean", "variance": "cov"}


def names(num_blocks: int) -> dict[str, str]:
    """Our parameter -> the reference's."""
    tables = {
        "means.weight": "item_mean_embeddings.weight",
        "variances.weight": "item_cov_embeddings.weight",
        "mean_positions": "position_mean_embeddings.weight",
        "variance_positions": "position_cov_embeddings.weight",
    }
    modules = {"norm": "LayerNorm"}
    for index in range(num_blocks):
        block, layer = f"blocks.{index}", f"item_encoder.layer.{index}"
        modules[f"{block}.norm"] = f"{layer}.attention.LayerNorm"
        for ours, theirs in MOMENTS.items():
            for part in ("query", "key", "value"):
                modules[f"{block}.{part}.{ours}"] = f"{layer}.attention.{theirs}_{part}"
            modules[f"{block}.output.{ours}"] = f"{layer}.attention.{theirs}_dense"
            modules[f"{block}.inner.{ours}"] = f"{layer}.{theirs}_intermediate.dense_1"
            modules[f"{block}.outer.{ours}"] = f"{layer}.{theirs}_intermediate.dense_2"
            modules[f"{block}.norm_outer.{ours}"] = f"{layer}.{theirs}_intermediate.LayerNorm"
    pairs = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in ("weight", "bias")}
    return tables | pairs


def pass_the_mean_on(encoder: torch.nn.Module) -> None:
    """Mend the released encoder: layer by layer with its own layers, the new mean included."""

    def forward(mean: Tensor, variance: Tensor, mask: Tensor, **_: Any) -> list[tuple[Tensor, ...]]:
        for layer in encoder.layer:
            mean, variance, attention = layer(mean, variance, mask)
        return [(mean, variance, attention)]

    encoder.forward = forward


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences with one block, as the README's command has it, and with two."""
    found: dict[str, float] = {}
    with exactly(), visible_dropout(), importing(checkout):
        import utils

        for name in MISSING:
            setattr(utils, name, None)
        for encoder in ("released", "paper"):
            for num_blocks in (1, 2):
                differences = _compare(encoder, num_blocks)
                found |= {f"{encoder}, {num_blocks} block(s): {name}": value for name, value in differences.items()}
    return found


def _compare(encoder: str, num_blocks: int) -> dict[str, float]:
    import seqmodels
    import trainers

    options = SimpleNamespace(**OPTIONS, num_hidden_layers=num_blocks)
    theirs = seqmodels.DistSAModel(options)
    if encoder == "paper":
        pass_the_mean_on(theirs.item_encoder)
    trainer = trainers.DistSAModelTrainer(theirs, None, None, None, options)
    ours = toys.learner(stosa.build, encoder=encoder, num_blocks=num_blocks, attention_dropout=0.1)
    weights = Weights(dict(ours.module.named_parameters()), dict(theirs.named_parameters()), names(num_blocks), UNUSED)
    initial = {INITIAL: weights.initial_difference()}
    scramble(theirs)
    weights.copy()
    return initial | _training(ours, trainer, weights) | {"scores": _ranking(ours, trainer)}


def _training(ours: stosa.STOSA, trainer: Any, weights: Weights) -> dict[str, float]:
    batch, draw, drawn = ours.sampler.batch(torch.arange(toys.NUM_USERS)), ours.negatives.draw, []
    ours.negatives.draw = lambda *inputs: drawn.append(draw(*inputs)) or drawn[-1]
    terms = ours.loss(batch)
    input_BL, target_BL, negative_BL = (
        pad_left(items, toys.MAX_LEN) for items in (batch.input_BL, batch.target_BL, drawn[0])
    )
    mean, variance, *_ = trainer.model.finetune(input_BL, batch.user_B)
    pairwise, _, margin = trainer.bpr_optimization(mean, variance, target_BL, negative_BL)
    terms["loss"].backward()
    (pairwise + margin).backward()
    return {
        "loss": relative_difference(terms["loss"], pairwise + margin),
        "pairwise": relative_difference(terms["pairwise"], pairwise),
        "margin": relative_difference(terms["margin"] * ours.config.margin_weight, margin),
        "gradients": weights.gradient_difference(),
    }


def _ranking(ours: stosa.STOSA, trainer: Any) -> float:
    """Both as deviations from a user's mean score, as ours lack a constant per user."""
    history_BL, user_B = toys.histories(), torch.arange(toys.NUM_USERS)
    with torch.no_grad(), evaluation_mode(ours.module), evaluation_mode(trainer.model):
        score = ours.score(history_BL, user_B, UserNoise.single(toys.NUM_USERS, toys.MAX_LEN))
        mean, variance, *_ = trainer.model.finetune(history_BL, user_B)
        expected = -trainer.dist_predict_full(mean[:, -1], variance[:, -1])
    centred = (each - each.mean(1, keepdim=True) for each in (score, expected))
    return relative_difference(*centred)
