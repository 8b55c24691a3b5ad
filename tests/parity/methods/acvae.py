"""ACVAE's four losses, their gradients, one update by its three optimisers, and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from baselines import acvae
from baselines.acvae import WIDTH
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import align_left
from tests.parity import toys
from tests.parity.checkouts import importing
from tests.parity.exchange import INITIAL, Tape, Weights, exactly, relative_difference, scramble, visible_dropout

REPOSITORY, COMMIT = "ACVAE/ACVAE-PyTorch", "9a1dac6"

# The reference's train.py.
OPTIONS = {
    "item_embed_size": 128,
    "rnn_size": 100,
    "hidden_size": 100,
    "latent_size": 64,
    "model_func": "fc_cnn",
    "add_eps": True,
    "kl_weight": 0.05,
    "contrast_weight": 0.1,
    "total_items": toys.NUM_ITEMS,
}
GRU = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
LAYERS = {
    "generator": {
        "encoder.noise": "encoder.eps.linear.0",
        "encoder.first": "encoder.dot_cnn1.0",
        "encoder.wide": "encoder.cnn_layer.0",
        "encoder.last": "encoder.dot_cnn2.0",
        "encoder.latent": "encoder.linear_o",
        "decode": "decoder.linear1",
        "output": "decoder.linear2",
    },
    "critic": {
        "enter": "linear_i",
        "pairs.0.0": "dnet_list.0",
        "pairs.0.1": "net_list.0",
        "pairs.1.0": "dnet_list.1",
        "pairs.1.1": "net_list.1",
        "leave": "linear_o",
    },
    "contrast": {"leave": "linear"},
}


def names() -> dict[str, str]:
    """Our parameter -> the reference's, both below the name of our network."""
    pairs = {"generator.items.weight": "generator.item_embed.weight"}
    pairs |= {f"{part}.gru.{kind}": f"{part}.gru.{kind}" for part in ("generator", "contrast") for kind in GRU}
    for part, layers in LAYERS.items():
        for ours, theirs in layers.items():
            pairs |= {f"{part}.{ours}.{kind}": f"{part}.{theirs}.{kind}" for kind in ("weight", "bias")}
    return pairs


UNUSED = ("generator.linear1.", "generator.linear_o.")


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences; pairs of users for the contrast are taken in the order of the batch on both sides."""
    with (
        exactly(),
        visible_dropout(),
        importing(checkout),
        patch.object(torch, "randperm", lambda n, **_: torch.arange(n)),
    ):
        import loss_func
        import model

        parts = {"generator": model.Model, "critic": model.Adversary, "contrast": model.GRUAdversary}
        theirs = torch.nn.ModuleDict({name: network(OPTIONS) for name, network in parts.items()})
        ours = toys.learner(acvae.build)
        weights = Weights(dict(ours.module.named_parameters()), dict(theirs.named_parameters()), names(), UNUSED)
        initial = {INITIAL: weights.initial_difference()}
        scramble(theirs, std=0.03)  # far from where log(sigmoid + 1e-9) of the reference saturates
        weights.copy()
        ranking = _ranking(ours, theirs)  # first, as the training step moves the weights
        return initial | _training(ours, theirs, weights, loss_func) | {"scores": ranking}


def _training(ours: acvae.ACVAE, theirs: torch.nn.ModuleDict, weights: Weights, losses: Any) -> dict[str, float]:
    """One training step; the gradients are those of the generator's loss and, for the KL critic, of its own."""
    batch, tape, before = ours.sampler.batch(torch.arange(toys.NUM_USERS)), Tape(), weights.values()
    history_BL, length_B = align_left(batch.input_BL)
    target_BL, _ = align_left(batch.target_BL)
    padding_BL = torch.arange(history_BL.shape[1]) >= length_B[:, None]
    with tape.recording():
        terms = ours.training_step(batch)
    *encoder, prior_ND = tape.draws
    prior_BLD = torch.zeros(*history_BL.shape, OPTIONS["latent_size"])
    prior_BLD[~padding_BL] = prior_ND
    tape.draws = [
        *(draw[:, WIDTH - 1 :] for draw in encoder),
        prior_BLD,
    ]  # ours draws for what precedes the sequence too
    with tape.replaying():
        expected = _reference_step(theirs, losses, history_BL, target_BL, padding_BL)
    found = {name: relative_difference(terms[name], value) for name, value in expected.items()}
    return found | {"gradients": weights.gradient_difference(), "update": weights.update_difference(before)}


def _reference_step(
    theirs: torch.nn.ModuleDict, losses: Any, history_BL: Tensor, target_BL: Tensor, padding_BL: Tensor
) -> dict[str, Tensor]:
    """The order of losses and optimisers in the reference's train.py, with its networks, losses and rates."""
    generator, critic, contrast = (theirs[name] for name in ("generator", "critic", "contrast"))
    primal = torch.optim.AdamW(generator.parameters(), lr=1e-3, weight_decay=1e-2)
    twice = [*generator.encoder.parameters(), *contrast.parameters()]
    dual = torch.optim.SGD(twice, lr=3e-4, weight_decay=0.1)
    prior = torch.optim.SGD(critic.parameters(), lr=5e-4, weight_decay=0.1)
    pred, real, inferred, _ = generator(history_BL)
    terms = {
        "reconstruction": losses.vae_loss(pred, target_BL, None, padding_BL, OPTIONS),
        "kl": losses.kl_loss(critic, real, inferred, padding_BL, KL_WEIGHT=OPTIONS["kl_weight"]),
        "contrast": losses.adversary_loss(
            contrast, real, inferred, padding_BL, CONTRAST_WEIGHT=OPTIONS["contrast_weight"]
        ),
    }
    sum(terms.values()).backward()
    primal.step()
    dual.step()
    prior.zero_grad()
    terms["critic"] = losses.adversary_kl_loss(critic, real.detach(), inferred.detach(), padding_BL)
    terms["critic"].backward()
    prior.step()
    return terms


def _ranking(ours: acvae.ACVAE, theirs: torch.nn.ModuleDict) -> float:
    """We draw noise for the positions that reach the last output; the reference gets it there and zeros elsewhere."""
    history_BL, tape = toys.histories(), Tape()
    aligned_BL, length_B = align_left(history_BL)
    rows = torch.arange(len(history_BL))
    with torch.no_grad(), evaluation_mode(ours.module), evaluation_mode(theirs):
        with tape.recording():
            score = ours.score(history_BL, rows, UserNoise.single(len(rows), history_BL.shape[1]))
        tape.draws = [_spread(draw, length_B, history_BL.shape[1]) for draw in tape.draws]
        with tape.replaying():
            pred_BLI = theirs["generator"](aligned_BL)[0]
    return relative_difference(score, pred_BLI[rows, length_B - 1])


def _spread(draw_BWD: Tensor, length_B: Tensor, width: int) -> Tensor:
    """Each user's last values at the end of a history that is aligned left.  [B, W, D] -> [B, width, D]"""
    whole = torch.zeros(len(draw_BWD), width, draw_BWD.shape[-1])
    for row, length in enumerate(length_B.tolist()):
        count = min(length, draw_BWD.shape[1])
        whole[row, length - count : length] = draw_BWD[row, -count:]
    return whole
