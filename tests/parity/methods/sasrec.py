"""SASRec's training loss with the same negatives, its gradients, and the scores of all items."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch

from baselines import sasrec
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import pad_left
from tests.parity import tensorflow1, toys
from tests.parity.exchange import INITIAL, Weights, exactly, relative_difference, visible_dropout

REPOSITORY, COMMIT = "kang205/SASRec", "e373896"
OPTIONS = {"embedding_dim": 50, "num_blocks": 2, "num_heads": 2, "dropout": 0.5}  # main.py's, but for a second head
TABLE = "SASRec/input_embeddings/lookup_table"

obstacle, runtime = tensorflow1.obstacle, tensorflow1.runtime


def names() -> dict[str, str]:
    """Our parameter -> the reference's variable. Its layers have no names of their own; a gain follows its bias."""
    attention = {"query": "dense", "key": "dense_1", "value": "dense_2"}
    inner = {"inner": "conv1d", "outer": "conv1d_1"}
    pairs = {"items.weight": TABLE, "positions": "SASRec/dec_pos/lookup_table"}
    norms = {"norm": "SASRec/ln"}
    for index in range(OPTIONS["num_blocks"]):
        scope = f"SASRec/num_blocks_{index}"
        norms |= {f"blocks.{index}.norm_attention": f"{scope}/ln", f"blocks.{index}.norm_feed_forward": f"{scope}/ln_1"}
        layers = {ours: f"self_attention/{theirs}" for ours, theirs in attention.items()}
        layers |= {ours: f"multihead_attention/{theirs}" for ours, theirs in inner.items()}
        for ours, theirs in layers.items():
            pairs[f"blocks.{index}.{ours}.weight"] = f"{scope}/{theirs}/kernel"
            pairs[f"blocks.{index}.{ours}.bias"] = f"{scope}/{theirs}/bias"
    for ours, theirs in norms.items():
        pairs |= {f"{ours}.bias": f"{theirs}/Variable", f"{ours}.weight": f"{theirs}/Variable_1"}
    return pairs


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences of the released configuration."""
    with exactly(), visible_dropout():
        ours = toys.learner(sasrec.build, **OPTIONS)
        batch, history_BL = ours.sampler.batch(torch.arange(toys.NUM_USERS)), toys.histories()
        negative_BL = ours.negatives.draw(batch.user_B, (toys.MAX_LEN,), torch.Generator().manual_seed(0))
        is_target_BL = pad_left(batch.target_BL, toys.MAX_LEN) > 0
        arrays = {
            "input": pad_left(batch.input_BL, toys.MAX_LEN),
            "target": pad_left(batch.target_BL, toys.MAX_LEN),
            "negative": negative_BL * is_target_BL,
            "history": history_BL,
            "num_items": toys.NUM_ITEMS,
        }
        made = tensorflow1.run("sasrec", checkout, arrays | OPTIONS)
        started = _weights(ours, tensorflow1.initial(made)).initial_difference()
        weights = _weights(ours, tensorflow1.parameters(made))
        weights.copy()
        with patch.object(ours.negatives, "draw", lambda *_: negative_BL[is_target_BL]):
            loss = ours.loss(batch)["loss"]
        loss.backward()
        with torch.no_grad(), evaluation_mode(ours.module):
            score = ours.score(history_BL, torch.arange(toys.NUM_USERS), UserNoise.single(toys.NUM_USERS, toys.MAX_LEN))
        return {
            INITIAL: started,
            "loss": relative_difference(loss, made["loss"]),
            "gradients": weights.gradient_difference(),
            "scores": relative_difference(score, made["scores"][:, : toys.NUM_ITEMS + 1]),
        }


def _weights(ours: sasrec.SASRec, theirs: dict[str, torch.Tensor]) -> Weights:
    theirs[TABLE][0] = 0  # as the reference does whenever it reads its table
    return Weights(dict(ours.module.named_parameters()), theirs, names())
