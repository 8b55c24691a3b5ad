"""DiffuRec's training loss, its gradients, and the scores after the whole reverse chain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from baselines import diffurec
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from tests.parity import toys
from tests.parity.checkouts import importing
from tests.parity.exchange import INITIAL, Tape, Weights, exactly, relative_difference, scramble, visible_dropout

REPOSITORY, COMMIT = "WHUIR/DiffuRec", "f6f70c9"
ROWS = 48  # training samples in the batch

# Defaults of the reference's main.py.
OPTIONS = {
    "hidden_size": 128,
    "num_blocks": 4,
    "diffusion_steps": 32,
    "schedule_sampler_name": "lossaware",
    "noise_schedule": "trunc_lin",
    "lambda_uncertainty": 0.001,
    "rescale_timesteps": True,
    "dropout": 0.1,
    "emb_dropout": 0.3,
    "item_num": toys.NUM_ITEMS,
    "max_len": toys.MAX_LEN,
}
# Of position table and leftover layers, which never touch the output.
UNUSED = ("position_embeddings", *(f"diffu.xstart_model.{name}" for name in ("linear_", "fuse_linear")))


def reference_model(checkout: Path, **changes: Any) -> torch.nn.Module:
    """The reference's network as its main.py builds it, with OPTIONS and `changes`."""
    with importing(checkout / "src"), patch.object(np, "int", int, create=True):
        import model

        options = SimpleNamespace(**(OPTIONS | changes))
        return model.Att_Diffuse_model(model.create_model_diffu(options), options)


def names() -> dict[str, str]:
    """Our parameter -> the reference's."""
    inner = "diffu.xstart_model"
    modules = {
        "norm_items": "LayerNorm",
        "norm": f"{inner}.norm_diffu_rep",
        "time.0": f"{inner}.time_embed.0",
        "time.2": f"{inner}.time_embed.2",
    }
    parts = {
        "attention.query": "attention.linear_layers.0",
        "attention.key": "attention.linear_layers.1",
        "attention.value": "attention.linear_layers.2",
        "attention.output": "attention.w_layer",
        "feed_forward.inner": "feed_forward.w_1",
        "feed_forward.outer": "feed_forward.w_2",
        "norm_attention": "input_sublayer.norm",
        "norm_feed_forward": "output_sublayer.norm",
    }
    for index in range(OPTIONS["num_blocks"]):
        block = f"{inner}.att.transformer_blocks.{index}"
        modules |= {f"blocks.{index}.{ours}": f"{block}.{theirs}" for ours, theirs in parts.items()}
    pairs = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in ("weight", "bias")}
    return {"items.weight": "item_embeddings.weight", **pairs}


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences of `mask: released`, as released and with a delta of 1, which brings diffusion to light."""
    found: dict[str, float] = {}
    for delta in (OPTIONS["lambda_uncertainty"], 1.0):
        with exactly(), visible_dropout():
            differences = _compare(checkout, delta)
        found |= {f"delta {delta:g}: {name}": value for name, value in differences.items()}
    return found


def _compare(checkout: Path, delta: float) -> dict[str, float]:
    theirs = reference_model(checkout, lambda_uncertainty=delta)
    ours = toys.learner(diffurec.build, delta=delta)
    named = (dict(module.named_parameters()) for module in (ours.module, theirs))
    weights = Weights(*named, names(), UNUSED)
    initial = {INITIAL: weights.initial_difference()}
    scramble(theirs)
    weights.copy()
    return initial | _training(ours, theirs, weights) | {"scores after the chain": _ranking(ours, theirs)}


def _training(ours: diffurec.DiffuRec, theirs: torch.nn.Module, weights: Weights) -> dict[str, float]:
    batch, tape = ours.sampler.batch(torch.arange(ROWS)), Tape()
    with tape.recording():
        loss = ours.loss(batch)["loss"]
    with tape.replaying():
        target = batch.target_B[:, None]
        _, hidden, *_ = theirs(batch.history_BL, target)
        expected = theirs.loss_diffu_ce(hidden, target)
    loss.backward()
    expected.backward()
    return {"loss": relative_difference(loss, expected), "gradients": weights.gradient_difference()}


def _ranking(ours: diffurec.DiffuRec, theirs: torch.nn.Module) -> float:
    history_BL, user_B, tape = toys.histories(), torch.arange(toys.NUM_USERS), Tape()
    with torch.no_grad(), evaluation_mode(ours.module), evaluation_mode(theirs):
        with tape.recording():
            score = ours.score(history_BL, user_B, UserNoise.single(toys.NUM_USERS, toys.MAX_LEN))
        tape.add(torch.zeros(toys.NUM_USERS, OPTIONS["hidden_size"]))  # drawn at the last step too, and multiplied by 0
        with tape.replaying():
            _, hidden, *_ = theirs(history_BL, None, train_flag=False)
    return relative_difference(score, theirs.diffu_rep_pre(hidden))
