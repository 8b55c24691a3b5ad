"""SVAE's loss and gradients user by user, as the notebook trains, and its scores with a sampled latent."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from baselines import svae
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import SequenceBatch
from tests.parity import toys
from tests.parity.exchange import INITIAL, Tape, Weights, exactly, relative_difference, scramble

REPOSITORY, COMMIT = "noveens/svae_cf", "995c293"

# The notebook's own, its anneal's cap as weight of the KL.
OPTIONS = {
    "batch_size": 1,
    "item_embed_size": 256,
    "rnn_size": 200,
    "hidden_size": 150,
    "latent_size": 64,
    "loss_type": "next_k",
    "next_k": 4,
    "total_items": toys.NUM_ITEMS,
    "number_users_to_keep": toys.NUM_USERS,
}
KL_WEIGHT = 0.2

NAMES = {
    "items.weight": "item_embed.weight",
    **{f"gru.{kind}_l0": f"gru.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    **{
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in {
            "encode": "encoder.linear1",
            "latent": "linear1",
            "decode": "decoder.linear1",
            "output": "decoder.linear2",
        }.items()
        for kind in ("weight", "bias")
    },
}


def notebook(checkout: Path) -> SimpleNamespace:
    """The notebook's classes: its code cells that define one and do nothing else, and the two types they use."""
    cells = json.loads((checkout / "main_svae.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"torch": torch, "nn": torch.nn, "F": F, "np": np, "tqdm": iter}
    names |= {"Variable": torch.autograd.Variable, "LongTensor": torch.LongTensor, "is_cuda_available": False}
    for source in sources:
        if re.match(r"(class|def load_data)\b", source):
            exec(compile(source, str(checkout / "main_svae.ipynb"), "exec"), names)
    return SimpleNamespace(**names)


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences of `kl: released`; the notebook's batch of one user is a batch of one user here."""
    with exactly(), warnings.catch_warnings(action="ignore"):
        code = notebook(checkout)
        theirs = code.Model(OPTIONS)
        ours = toys.learner(svae.build, kl="released", kl_cap=KL_WEIGHT, anneal_users=1, max_len=50)
        ours.users_seen = 1  # the anneal is at its cap
        weights = Weights(dict(ours.module.named_parameters()), dict(theirs.named_parameters()), NAMES)
        initial = {INITIAL: weights.initial_difference()}
        scramble(theirs)
        weights.copy()
        return initial | _training(ours, theirs, weights, code) | {"scores": _ranking(ours, theirs)}


def _training(ours: svae.SVAE, theirs: Any, weights: Weights, code: SimpleNamespace) -> dict[str, float]:
    """The notebook's reader makes inputs and dense targets of each user."""
    train = toys.split().training_view().train
    lines = [f"{user},{item - 1},1" for user in range(train.num_users) for item in train.of_user(user)]
    reader = code.DataReader(OPTIONS, lines, None, toys.NUM_ITEMS, True)
    criterion, losses, gradients = code.VAELoss(OPTIONS), [], []
    for input_BL, dense in reader.iter():
        items = input_BL[0] + 1
        last = (dense[0, -1].nonzero().flatten() + 1)[:1]
        batch = SequenceBatch(items[None], torch.cat([items[1:], last])[None], torch.zeros(1, dtype=torch.long))
        tape = Tape()
        weights.forget_gradients()
        with tape.recording():
            loss = ours.loss(batch)["loss"]
        with tape.replaying():
            expected = criterion(*theirs(input_BL), dense, KL_WEIGHT)
        loss.backward()
        expected.backward()
        losses.append(relative_difference(loss, expected))
        gradients.append(weights.gradient_difference())
    return {"loss": max(losses), "gradients": max(gradients)}


def _ranking(ours: svae.SVAE, theirs: Any) -> float:
    """User by user, as the notebook has no padding; it draws one latent per position, we only that of the last."""
    worst = 0.0
    for history_L in toys.histories():
        items, tape = history_L[history_L > 0], Tape()
        with torch.no_grad(), evaluation_mode(ours.module), evaluation_mode(theirs):
            with tape.recording():
                score = ours.score(items[None], torch.zeros(1, dtype=torch.long), UserNoise.single(1, len(items)))
            last = tape.take(OPTIONS["latent_size"])
            tape.add(torch.cat([torch.zeros(len(items) - 1, len(last)), last[None]]))
            with tape.replaying():
                expected = theirs(items[None] - 1)[0][:, -1]
        worst = max(worst, relative_difference(score[:, 1:], expected))
    return worst
