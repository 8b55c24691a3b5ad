"""How fast DiffuRec learns: the reference in its own training loop, and ours, on the same part of Beauty.

    python -m tests.parity.training [--references DIR] [--sequences FILE] [--epochs N]

Adds the mean cross-entropy of each epoch to DiffuRec's entry in baselines/parity.json. Nothing is exchanged here: each
side has its own initial weights, shuffles, noise and dropout, so curves agree up to the chance of a seed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch

from baselines import diffurec
from harness import cli
from harness.compute import Compute
from harness.split import Sequences, leave_one_out
from harness.streams import Streams
from tests.parity.beauty import Comparison
from tests.parity.checkouts import importing
from tests.parity.methods.diffurec import OPTIONS, reference_model

# Small enough for one core of a CPU; dropout is as released.
SIZES: Final = {"embedding_dim": 64, "max_len": 20, "batch_size": 256, "dropout": 0.1, "embedding_dropout": 0.3}
NUM_ITEMS, MIN_LENGTH, SEED = 1000, 4, 1997
MASKS = ("released", "keys")


def most_frequent(sequences: Sequences, num_items: int) -> Sequences:
    """Only the most frequent items, renumbered by frequency, and users who keep at least MIN_LENGTH actions."""
    order = np.argsort(-np.bincount(sequences.items, minlength=sequences.num_items + 1), kind="stable")
    rank = np.zeros(sequences.num_items + 1, dtype=np.int64)
    rank[order[:num_items]] = np.arange(1, num_items + 1)
    users = ([int(i) for i in rank[sequences.of_user(user)] if i] for user in range(sequences.num_users))
    return Sequences.from_lists([items for items in users if len(items) >= MIN_LENGTH], num_items)


def train_ours(train: Any, mask: str, epochs: int) -> list[float]:
    """Mean loss of each epoch."""
    streams = Streams(SEED)
    learner = diffurec.build(SIZES | {"mask": mask}, train, streams, Compute())
    streams.seed_global("dropout")
    learner.module.train()
    means = []
    for _ in range(epochs):
        means.append(float(np.mean([float(learner.training_step(batch)["loss"]) for batch in learner.batches()])))
        learner.end_epoch(None)
        print(f"{mask}: epoch {len(means)}: {means[-1]:.4f}", flush=True)
    return means


def train_reference(train: Any, checkout: Path, epochs: int) -> list[float]:
    """Mean loss of each epoch, from the reference's data loader and `model_train`, whose evaluation is left out."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002, the reference draws its steps from numpy's global generator
    options = OPTIONS | {
        "hidden_size": SIZES["embedding_dim"],
        "max_len": SIZES["max_len"],
        "batch_size": SIZES["batch_size"],
        "dropout": SIZES["dropout"],
        "emb_dropout": SIZES["embedding_dropout"],
        "item_num": train.num_items,
    }
    loop = {"epochs": epochs, "eval_interval": epochs + 1, "device": "cpu", "num_gpu": 1, "metric_ks": [5]}
    rate = {"optimizer": "Adam", "lr": 1e-3, "weight_decay": 0, "decay_step": 100, "gamma": 0.1}
    arguments = SimpleNamespace(**options, **loop, **rate, diversity_measure=False)
    model = reference_model(checkout, **options)
    losses, loss_of, out = [], model.loss_diffu_ce, sys.stdout
    steps = -(-(len(train.train.items) - train.num_users) // SIZES["batch_size"])  # of an epoch

    def loss_diffu_ce(*inputs):
        loss = loss_of(*inputs)
        losses.append(float(loss.detach()))
        if len(losses) % steps == 0:
            print(f"reference: epoch {len(losses) // steps}: {np.mean(losses[-steps:]):.4f}", file=out, flush=True)
        return loss

    model.loss_diffu_ce = loss_diffu_ce
    sequences = {user: train.train.of_user(user).tolist() for user in range(train.num_users)}
    with importing(checkout / "src"), contextlib.redirect_stdout(io.StringIO()):
        import trainer
        import utils

        loader = utils.Data_Train(sequences, arguments).get_pytorch_dataloaders()
        with warnings.catch_warnings(action="ignore"):
            trainer.model_train(loader, [], [], model, arguments, logging.getLogger("reference"))
    return np.array(losses).reshape(epochs, steps).mean(1).tolist()


def main(argv: Sequence[str] | None = None) -> int:
    comparison = Comparison.start("diffurec", "tests.parity.training", epochs=8, argv=argv)
    train = leave_one_out(most_frequent(comparison.sequences, NUM_ITEMS)).training_view()
    curves = {mask: train_ours(train, mask, comparison.epochs) for mask in MASKS}
    curves["reference"] = train_reference(train, comparison.checkout, comparison.epochs)
    for name, curve in curves.items():
        print(f"{name}: {' '.join(f'{value:.3f}' for value in curve)}")
    entry = {
        "data": f"{comparison.described}; its {NUM_ITEMS} most frequent items, {train.num_users} users",
        "settings": SIZES,
        "mean cross-entropy by epoch": curves,
    }
    comparison.save("training", entry)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
