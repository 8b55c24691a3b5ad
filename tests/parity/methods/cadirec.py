"""One training step of CaDiRec by the reference's own trainer: its three losses and gradients; and its scores.

Needs transformers 4.45.2, whose DeBERTa encoder the reference uses.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines import cadirec
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import SequenceBatch, pad_left
from tests.parity import toys
from tests.parity.checkouts import importing
from tests.parity.exchange import INITIAL, Tape, Weights, exactly, relative_difference, scramble, visible_dropout

REPOSITORY, COMMIT = "ziqiangcui/CaDiRec", "870f0dd"
NEEDS = ("transformers",)

DIM, HEADS, BLOCKS = 64, 2, 2
# The reference's configs/cadirec_config_beauty.py, without the spare mask row.
OPTIONS = {
    "item_size": toys.NUM_ITEMS + 1,
    "train_batch_size": toys.NUM_USERS,
    "hidden_size": DIM,
    "max_seq_length": toys.MAX_LEN,
    "n_layers": BLOCKS,
    "n_heads": HEADS,
    "inner_size": 128,
    "sasrec_dropout_prob": 0.5,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "temperature": 1.0,
    "num_hidden_layers": BLOCKS,
    "intermediate_size": 128,
    "num_attention_heads": HEADS,
    "attention_probs_dropout_prob": 0.2,
    "hidden_dropout_prob": 0.2,
    "max_position_embeddings": toys.MAX_LEN,
    "max_relative_positions": -1,
    "type_vocab_size": 0,
    "pos_att_type": ["p2c", "c2p"],
    "relative_attention": True,
    "position_biased_input": False,
    "alpha": 0.1,
    "beta": 0.2,
    "gamma": 0.0,
    "warm_up_epochs": -1,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "noise_schedule": "sqrt",
    "diffusion_steps": 1000,
    "rescale_timesteps": True,
    "predict_xstart": True,
    "learn_sigma": False,
    "sigma_small": False,
    "use_kl": False,
    "rescale_learned_sigmas": False,
}
MASK_RATE = 0.3  # more than the released 0.1, so that a small batch has some


def names() -> dict[str, str]:
    """Our parameter -> the reference's; `bias` is all that only the reference has."""
    modules = {"norm": "LayerNorm", "denoiser.time.0": "time_embed.0", "denoiser.time.2": "time_embed.2"}
    modules["denoiser.norm"] = "ln_bert"
    alone = {"items.weight": "item_embedding.weight", "positions": "position_embedding.weight"}
    alone["denoiser.relative.weight"] = "bert_encoder.rel_embeddings.weight"
    for index in range(BLOCKS):
        layer, bert = f"rec_trm_encoder.layer.{index}", f"bert_encoder.layer.{index}"
        modules |= {
            **{
                f"attention.{index}.{part}": f"{layer}.multi_head_attention.{part}"
                for part in ("query", "key", "value")
            },
            f"attention.{index}.output": f"{layer}.multi_head_attention.dense",
            f"residuals.{index}.norm_attention": f"{layer}.multi_head_attention.LayerNorm",
            f"residuals.{index}.feed_forward.inner": f"{layer}.feed_forward.dense_1",
            f"residuals.{index}.feed_forward.outer": f"{layer}.feed_forward.dense_2",
            f"residuals.{index}.norm_feed_forward": f"{layer}.feed_forward.LayerNorm",
            f"denoiser.attention.{index}.position_query": f"{bert}.attention.self.pos_q_proj",
            f"denoiser.attention.{index}.output": f"{bert}.attention.output.dense",
            f"denoiser.residuals.{index}.norm_attention": f"{bert}.attention.output.LayerNorm",
            f"denoiser.residuals.{index}.feed_forward.inner": f"{bert}.intermediate.dense",
            f"denoiser.residuals.{index}.feed_forward.outer": f"{bert}.output.dense",
            f"denoiser.residuals.{index}.norm_feed_forward": f"{bert}.output.LayerNorm",
        }
        ours = f"denoiser.attention.{index}"
        alone |= {
            f"{ours}.projection.weight": f"{bert}.attention.self.in_proj.weight",
            f"{ours}.position_key.weight": f"{bert}.attention.self.pos_proj.weight",
            f"{ours}.query_bias": f"{bert}.attention.self.q_bias",
            f"{ours}.value_bias": f"{bert}.attention.self.v_bias",
        }
    pairs = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in ("weight", "bias")}
    return alone | pairs


def rows() -> dict[str, Tensor]:
    """DeBERTa's projection has queries, keys and values of one head side by side; ours has all queries first."""
    order = torch.arange(3 * DIM).view(HEADS, 3, DIM // HEADS).transpose(0, 1).flatten()
    return {f"denoiser.attention.{index}.projection.weight": order for index in range(BLOCKS)}


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences; padding is kept out of the reference's denoising logits, as it is no candidate here."""
    from transformers.models.deberta.modeling_deberta import StableDropout

    no_cuda = patch.object(torch.Tensor, "cuda", lambda x: x)
    with exactly(), visible_dropout(StableDropout), importing(checkout), no_cuda:
        from trainers import trainer as code

        loader = SimpleNamespace(item_size=OPTIONS["item_size"], train_dataloader=[])
        loader.valid_dataloader = loader.test_dataloader = None
        trainer = code.Trainer(SimpleNamespace(**OPTIONS), torch.device("cpu"), loader)
        theirs, logits_of = trainer.model, trainer.model.get_logits
        theirs.get_logits = lambda hidden: F.pad(logits_of(hidden)[..., 1:], (1, 0), value=-1e30)
        ours = toys.learner(cadirec.build, mask_rate=MASK_RATE, length_slices=1)
        named = (dict(module.named_parameters()) for module in (ours.module, theirs))
        weights = Weights(*named, names(), ("bias",), rows())
        initial = {INITIAL: weights.initial_difference()}
        scramble(theirs)
        weights.copy()
        ranking = _ranking(ours, theirs)  # first, as the training step moves the weights
        return initial | _training(ours, trainer, weights) | {"scores": ranking}


def _training(ours: cadirec.CaDiRec, trainer: Any, weights: Weights) -> dict[str, float]:
    batch, drawn = ours.sampler.batch(torch.arange(toys.NUM_USERS)), []
    draw, denoise, tape = ours.negatives.draw, ours.denoise, Tape()
    ours.negatives.draw = lambda *inputs: drawn.append(draw(*inputs)) or drawn[-1]

    def recorded(history_BL: Tensor) -> tuple[Tensor, Tensor]:
        with tape.recording():
            return denoise(history_BL)

    ours.denoise = recorded
    terms = ours.training_step(batch)
    masked_BL = _reference_draws(tape, batch)
    losses = _record_losses(trainer)
    trainer.train_dataloader = [
        {
            "input_ids": batch.input_BL,
            "target_pos": batch.target_BL,
            "target_neg": pad_left(drawn[0], toys.MAX_LEN),
            "attention_mask": (batch.input_BL > 0).to(torch.get_default_dtype()),
            "masked_indices0": masked_BL,
        }
    ]
    with tape.replaying():
        trainer._train_one_epoch(0)
    expected = {
        "recommendation": losses["calculate_rec_loss"],
        "denoising": losses["training_losses"][1],
        "contrast": losses["calculate_cl_loss"],
    }
    found = {name: relative_difference(terms[name], value) for name, value in expected.items()}
    return found | {"gradients": weights.gradient_difference()}


def _reference_draws(tape: Tape, batch: SequenceBatch) -> Tensor:
    """Spread our draws, made for rows and positions that matter, over the whole batch; return what was masked."""
    chosen_BL, t_R, *noise, pick_2N = tape.draws
    masked_BL = (chosen_BL < MASK_RATE) & (batch.input_BL > 0)
    row_R = masked_BL.any(1).nonzero()[:, 0]
    t_B = torch.zeros(len(masked_BL), dtype=torch.long)
    t_B[row_R] = t_R
    whole = torch.zeros(len(noise), *masked_BL.shape, DIM)
    for part, draw_RWD in zip(whole, noise, strict=True):
        part[row_R, -draw_RWD.shape[1] :] = draw_RWD
    pick_BL2 = torch.zeros(*masked_BL.shape, 2, dtype=torch.long)
    pick_BL2[masked_BL] = pick_2N[..., 0].T
    tape.draws = [t_B, *whole, pick_BL2]
    return masked_BL


def _record_losses(trainer: Any) -> dict[str, Any]:
    """Keep what the reference's loss functions return when its trainer calls them."""
    losses: dict[str, Any] = {}

    def keep(owner: Any, name: str) -> None:
        function = getattr(owner, name)
        setattr(owner, name, lambda *inputs: losses.setdefault(name, function(*inputs)))

    keep(trainer.model, "calculate_rec_loss")
    keep(trainer.model, "calculate_cl_loss")
    keep(trainer.diffusion, "training_losses")
    return losses


def _ranking(ours: cadirec.CaDiRec, theirs: Any) -> float:
    history_BL = toys.histories()
    with torch.no_grad(), evaluation_mode(ours.module), evaluation_mode(theirs):
        score = ours.score(history_BL, torch.arange(len(history_BL)), UserNoise.single(len(history_BL), toys.MAX_LEN))
        return relative_difference(score, theirs.full_sort_predict(history_BL))
