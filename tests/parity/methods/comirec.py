"""ComiRec's training loss with the same negatives and sampling probabilities, its gradients, and the scores.

The reference corrects by how often an item is expected among distinct negatives; it is given our probabilities instead,
the deviation that SOURCES.md lists. The negatives exchanged are distinct, as its removal of accidental hits expects.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from baselines import comirec
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import align_left, pad_left
from tests.parity import tensorflow1, toys
from tests.parity.exchange import INITIAL, Weights, exactly, relative_difference

REPOSITORY, COMMIT = "THUDM/ComiRec", "a576eed"
SIZES = {"embedding_dim": 64, "num_interests": 4}  # train.py's
ROWS, NUM_NEGATIVES = 48, 30  # training samples and negatives of the batch
TABLE, ROUTING = "mid_embedding_var", "capsule_network/bilinear/weights"
NAMES = {
    "attention": {
        "items.weight": TABLE,
        "extract.positions": "position_embedding",
        "extract.inner.weight": "self_atten/dense/kernel",
        "extract.inner.bias": "self_atten/dense/bias",
        "extract.outer.weight": "self_atten/dense_1/kernel",
        "extract.outer.bias": "self_atten/dense_1/bias",
    },
    "routing": {"items.weight": TABLE, "extract.weight": ROUTING},
}

obstacle, runtime = tensorflow1.obstacle, tensorflow1.runtime


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences of both extractors."""
    result = {}
    for interests in NAMES:
        with exactly():
            differences = _compare(checkout, interests)
        result |= {f"{interests}: {name}": value for name, value in differences.items()}
    return result


def _compare(checkout: Path, interests: str) -> dict[str, float]:
    ours = toys.learner(comirec.build, interests=interests, **SIZES)
    batch, history_BL, users = ours.sampler.batch(torch.arange(ROWS)), toys.histories(), torch.arange(toys.NUM_USERS)
    negative_N = torch.randperm(toys.NUM_ITEMS)[:NUM_NEGATIVES] + 1
    probability_I = ours._log_q_I.double().exp()
    arrays = {
        "history": align_left(pad_left(batch.history_BL, toys.MAX_LEN))[0],
        "target": batch.target_B,
        "ranked": align_left(history_BL)[0],
        "negative": negative_N,
        "target_probability": probability_I[batch.target_B],
        "negative_probability": probability_I[negative_N],
        "num_items": toys.NUM_ITEMS,
        "interests": interests,
    }
    made = tensorflow1.run("comirec", checkout / "src", arrays | SIZES)
    started = _weights(ours, tensorflow1.initial(made)).initial_difference()
    weights = _weights(ours, tensorflow1.parameters(made))
    weights.copy()
    with patch.object(ours, "_negatives", lambda: negative_N):
        loss = ours.loss(batch)["loss"]
    loss.backward()
    with torch.no_grad(), evaluation_mode(ours.module):
        score = ours.score(history_BL, users, UserNoise.single(toys.NUM_USERS, toys.MAX_LEN))
    expected = (made["interests"] @ weights.theirs[TABLE].T).amax(1)
    return {
        INITIAL: started,
        "loss": relative_difference(loss, made["loss"]),
        "gradients": weights.gradient_difference(),
        "scores": relative_difference(score, expected),
    }


def _weights(ours: comirec.ComiRec, theirs: dict[str, Tensor]) -> Weights:
    """The padding's vector, which masks hide there, as zeros; routing maps [1, L, out, in] as [L, in, out]."""
    theirs[TABLE][0] = 0
    if (maps := theirs.get(ROUTING)) is not None:
        theirs[ROUTING] = maps[0].transpose(1, 2).contiguous()
        theirs[ROUTING].grad = None if maps.grad is None else maps.grad[0].transpose(1, 2).contiguous()
    return Weights(dict(ours.module.named_parameters()), theirs, NAMES[ours.config.interests])
