"""BERT4Rec's training loss with the same masks, its gradients, and the log probabilities at a mask after histories.

The reference divides by the number of masks plus 1e-5, which shows as a difference of 1e-7 in loss and gradients.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines import bert4rec
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import align_left, pad_left
from tests.parity import tensorflow1, toys
from tests.parity.exchange import INITIAL, Weights, exactly, relative_difference, visible_dropout

REPOSITORY, COMMIT = "FeiSun/BERT4Rec", "615eaf2"
SIZES = {"embedding_dim": 64, "num_blocks": 2, "num_heads": 2, "inner_dim": 256}  # bert_config_beauty_64.json
RATES = {"dropout": 0.5, "attention_dropout": 0.2}  # likewise
TYPES = "bert/embeddings/token_type_embeddings"  # the second type never occurs

obstacle, runtime = tensorflow1.obstacle, tensorflow1.runtime


def names() -> dict[str, str]:
    """Our parameter -> the reference's variable."""
    pairs = {
        "items.weight": "bert/embeddings/word_embeddings",
        "positions.weight": "bert/embeddings/position_embeddings",
        "segment": TYPES,
        "bias": "cls/predictions/output_bias",
    }
    linear, norms = {"head": "cls/predictions/transform/dense"}, {"norm_head": "cls/predictions/transform/LayerNorm"}
    norms["norm"] = "bert/embeddings/LayerNorm"
    for index in range(SIZES["num_blocks"]):
        scope = f"bert/encoder/layer_{index}"
        linear |= {f"blocks.{index}.attention.{n}": f"{scope}/attention/self/{n}" for n in ("query", "key", "value")}
        linear[f"blocks.{index}.attention.output"] = f"{scope}/attention/output/dense"
        linear[f"blocks.{index}.feed_forward.inner"] = f"{scope}/intermediate/dense"
        linear[f"blocks.{index}.feed_forward.outer"] = f"{scope}/output/dense"
        norms[f"blocks.{index}.norm_attention"] = f"{scope}/attention/output/LayerNorm"
        norms[f"blocks.{index}.norm_feed_forward"] = f"{scope}/output/LayerNorm"
    for ours, theirs in linear.items():
        pairs |= {f"{ours}.weight": f"{theirs}/kernel", f"{ours}.bias": f"{theirs}/bias"}
    for ours, theirs in norms.items():
        pairs |= {f"{ours}.weight": f"{theirs}/gamma", f"{ours}.bias": f"{theirs}/beta"}
    return pairs


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences of the released configuration, its vocabulary without the two tokens that never occur."""
    with exactly(), visible_dropout():
        ours = toys.learner(bert4rec.build, **SIZES, **RATES)
        batch, history_BL = next(ours.batches()), toys.histories()
        ranked_BL = F.pad(history_BL[:, 1:], (0, 1), value=ours.module.mask_id)
        arrays = _slots(
            torch.cat([pad_left(group.input_BL, toys.MAX_LEN) for group in batch]),
            torch.cat([pad_left(group.target_BL, toys.MAX_LEN) for group in batch]),
        )
        ranked = _slots(ranked_BL, ranked_BL * (ranked_BL == ours.module.mask_id))
        arrays |= {f"ranked_{name}": value for name, value in ranked.items()}
        made = tensorflow1.run("bert4rec", checkout, arrays | SIZES | RATES | {"num_classes": toys.NUM_ITEMS + 2})
        started = _weights(ours, tensorflow1.initial(made)).initial_difference()
        weights = _weights(ours, tensorflow1.parameters(made))
        weights.copy()
        loss = ours.loss(batch)["loss"]
        loss.backward()
        with torch.no_grad(), evaluation_mode(ours.module):
            score = ours.score(history_BL, torch.arange(toys.NUM_USERS), UserNoise.single(toys.NUM_USERS, toys.MAX_LEN))
        return {
            INITIAL: started,
            "loss": relative_difference(loss, made["loss"]),
            "gradients": weights.gradient_difference(),
            "parameters that decay on one side only": _decay_difference(ours, made),
            "scores": relative_difference(_centred(score), _centred(made["scores"][:, : toys.NUM_ITEMS + 1])),
        }


def _decay_difference(ours: bert4rec.BERT4Rec, made: dict[str, Tensor]) -> int:
    """How many weights decay in one optimiser and not in the other."""
    decayed = {id(parameter) for parameter in ours.optimizer.param_groups[0]["params"]}
    pairs = ((parameter, names()[name]) for name, parameter in ours.module.named_parameters())
    return sum((id(parameter) in decayed) != bool(made[f"decays/{name}"]) for parameter, name in pairs)


def _slots(input_BL: Tensor, hidden_BL: Tensor) -> dict[str, Tensor]:
    """Right-padded input, and for each hidden item its place, id and weight, padded to the same number for all rows."""
    input_BL, hidden_BL = align_left(input_BL)[0], _follow(input_BL, hidden_BL)
    count = int((hidden_BL > 0).sum(1).max())
    place_BN = (hidden_BL > 0).double().sort(dim=1, descending=True, stable=True).indices[:, :count]
    chosen_BN = hidden_BL.gather(1, place_BN)
    real_BN = chosen_BN > 0
    return {"input": input_BL, "place": place_BN * real_BN, "hidden": chosen_BN, "weight": real_BN.double()}


def _follow(input_BL: Tensor, hidden_BL: Tensor) -> Tensor:
    """Hidden items shifted as align_left shifts the inputs they belong to."""
    shift_B = (input_BL == 0).sum(1)
    index_BL = torch.arange(input_BL.shape[1]) + shift_B[:, None]
    return hidden_BL.gather(1, index_BL % input_BL.shape[1])


def _weights(ours: bert4rec.BERT4Rec, theirs: dict[str, Tensor]) -> Weights:
    first = theirs[TYPES][0].clone()
    first.grad = None if theirs[TYPES].grad is None else theirs[TYPES].grad[0]
    return Weights(dict(ours.module.named_parameters()), theirs | {TYPES: first}, names())


def _centred(score_BI: Tensor) -> Tensor:
    """Scores less their mean, as logits and log probabilities differ by a constant per row."""
    return score_BI - score_BI.mean(1, keepdim=True)
