"""Caser: windows, then one epoch of the reference's own training loop in one batch, and its scores."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from baselines import caser
from harness.compute import evaluation_mode
from harness.streams import UserNoise
from harness.windows import ResidentSequences
from tests.parity import toys
from tests.parity.checkouts import importing
from tests.parity.exchange import INITIAL, Weights, exactly, relative_difference, scramble, visible_dropout
from tests.parity.steps import backward_losses

REPOSITORY, COMMIT = "graytowne/caser_pytorch", "c4e10e4"
LENGTH, DIM = 5, 50
OPTIONS = {"L": LENGTH, "d": DIM, "nv": 4, "nh": 16, "drop": 0.5, "ac_conv": "relu", "ac_fc": "relu"}
TRAINING = {"n_iter": 1, "batch_size": 512, "l2": 1e-6, "neg_samples": 3, "learning_rate": 1e-3}  # train_caser.py's
NAMES = {
    "items.weight": "item_embeddings.weight",
    "users.weight": "user_embeddings.weight",
    "vertical.weight": "conv_v.weight",
    "vertical.bias": "conv_v.bias",
    "join.weight": "fc1.weight",
    "join.bias": "fc1.bias",
    "output.weight": "W2.weight",
    "bias": "b2.weight",
}
NAMES |= {f"horizontal.{i}.{kind}": f"conv_h.{i}.{kind}" for i in range(LENGTH) for kind in ("weight", "bias")}


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences with one target per window and with three."""
    with exactly(), visible_dropout():
        result = {}
        for num_targets in (1, 3):
            result |= {f"T = {num_targets}: {name}": value for name, value in _compare(checkout, num_targets).items()}
        return result


def _compare(checkout: Path, num_targets: int) -> dict[str, float]:
    ours = toys.learner(caser.build, max_len=LENGTH, num_targets=num_targets)
    with importing(checkout):
        import interactions
        import train_caser

        data = _interactions(interactions)
        data.to_sequence(LENGTH, num_targets)
        theirs = train_caser.Recommender(model_args=SimpleNamespace(**OPTIONS), **TRAINING)
        theirs._initialize(data)
        result = {"windows": _window_difference(ours, data), INITIAL: _weights(ours, theirs).initial_difference()}
        scramble(theirs._net)
        weights = _weights(ours, theirs)
        weights.copy()
        before = weights.values()
        result |= _training(ours, theirs, data, train_caser)
    trained = _weights(ours, theirs)
    result |= {"gradients": trained.gradient_difference(), "update": trained.update_difference(before)}
    return result | {"scores": _ranking(ours, theirs)}


def _weights(ours: caser.Caser, theirs: Any) -> Weights:
    return Weights(dict(ours.module.named_parameters()), _shared(theirs._net), NAMES)


def _shared(theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The reference's parameters and their gradients laid out like ours."""
    result = {}
    for name, parameter in theirs.named_parameters():
        result[name] = _as_linear(name, parameter.detach())
        if parameter.grad is not None:
            result[name].grad = _as_linear(name, parameter.grad)
    return result


def _as_linear(name: str, value: torch.Tensor) -> torch.Tensor:
    """A convolution as a linear layer; the vertical features, which we keep column by column, in our order."""
    if name == "fc1.weight":
        count = OPTIONS["nv"] * DIM
        vertical = value[:, :count].unflatten(1, (OPTIONS["nv"], DIM)).transpose(1, 2).flatten(1)
        return torch.cat([vertical, value[:, count:]], dim=1)
    return value.reshape(len(value), -1).clone() if value.dim() == 4 else value.clone()


def _interactions(module: ModuleType) -> Any:
    """The training parts as the reference reads them from a file, under our ids."""
    train = toys.split().train
    users = {str(user): user for user in range(toys.NUM_USERS)}
    items = {str(item): item - 1 for item in range(1, toys.NUM_ITEMS + 1)}
    with tempfile.NamedTemporaryFile("w") as file:
        file.writelines(f"{user} {item} 1\n" for user in range(toys.NUM_USERS) for item in train.of_user(user))
        file.flush()
        return module.Interactions(file.name, users, items)


def _windows(ours: caser.Caser) -> caser.WindowBatch:
    return ours.sampler.batch(torch.arange(ours.sampler.num_samples))


def _window_difference(ours: caser.Caser, data: Any) -> float:
    """0 if both make the same windows, whatever their order within a user."""
    batch, theirs = _windows(ours), data.sequences
    rows = torch.cat([batch.user_B[:, None], batch.history_BL, batch.target_BT], dim=1)
    arrays = (theirs.user_ids[:, None], theirs.sequences, theirs.targets)
    expected = torch.cat([torch.as_tensor(array).long() for array in arrays], dim=1)
    return relative_difference(*(torch.tensor(sorted(part.tolist())) for part in (rows, expected)))


def _training(ours: caser.Caser, theirs: Any, data: Any, module: ModuleType) -> dict[str, float]:
    """One update of both on all windows, ours in the reference's order."""
    user_B, history_BL, target_BT = (
        torch.as_tensor(array).long()
        for array in (data.sequences.user_ids, data.sequences.sequences, data.sequences.targets)
    )
    negative_BN = ours.negatives.draw(user_B, (TRAINING["neg_samples"],), torch.Generator().manual_seed(0))
    with patch.object(ours.negatives, "draw", lambda *_: negative_BN):
        loss = ours.training_step(caser.WindowBatch(history_BL, target_BT, user_B))["loss"]
    with (
        patch.object(module, "shuffle", lambda *arrays: arrays),
        patch.object(theirs, "_generate_negative_samples", lambda *_, **__: negative_BN.numpy()),
        backward_losses() as losses,
    ):
        theirs.fit(data, None)
    return {"loss": relative_difference(loss, losses[0])}


def _ranking(ours: caser.Caser, theirs: Any) -> float:
    """Scores after the update; the reference ranks after the training part."""
    users = torch.arange(toys.NUM_USERS)
    with torch.no_grad(), evaluation_mode(ours.module):
        history_BL = ResidentSequences.of(toys.split().train).histories(users, LENGTH)
        score = ours.score(history_BL, users, UserNoise.single(toys.NUM_USERS, LENGTH))
    expected = torch.stack([torch.from_numpy(theirs.predict(int(user))) for user in users])
    return relative_difference(score, expected)
