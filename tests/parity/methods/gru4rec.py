"""GRU4Rec: a whole epoch of the official port's own training loop, step by step, and scores after it.

The port is the authors' (same repository owner as the Theano original) and runs without momentum here, as ours does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor

from baselines import gru4rec
from harness.compute import evaluation_mode
from harness.streams import Streams, UserNoise
from tests.parity import toys
from tests.parity.checkouts import importing
from tests.parity.exchange import INITIAL, Weights, exactly, relative_difference, scramble, visible_dropout
from tests.parity.steps import backward_losses

REPOSITORY, COMMIT = "hidasib/GRU4Rec_PyTorch_Official", "d1fc311"
NAMES = {"items.weight": "Wy.weight", "bias": "By.weight"}
NAMES |= {f"gru.{kind}_l0": f"G.0.{kind}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
DIM, SLOTS, SAMPLED, ALPHA = 16, 8, 20, 0.4
LOSSES = {"bpr_max": "bpr-max", "sampled_softmax": "cross-entropy"}  # ours -> theirs


def compare(checkout: Path) -> dict[str, float]:
    """Relative differences with BPR-max, which the baseline uses, and with corrected cross-entropy."""
    result = {}
    for loss, their_name in LOSSES.items():
        with exactly(), visible_dropout():
            differences = Epoch(checkout, loss, their_name).differences()
        result |= {f"{loss}: {name}": value for name, value in differences.items()}
    return result


def _tensor_of_series(tensor: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor for pandas' Series too, which it took when the reference was written."""
    return lambda data, **options: tensor(getattr(data, "values", data), **options)


class Epoch:
    """One epoch of both: ours runs first, from the weights that the reference starts with, and lends its samples."""

    def __init__(self, checkout: Path, loss: str, their_name: str) -> None:
        self.ours = toys.learner(
            gru4rec.build,
            embedding_dim=DIM,
            loss=loss,
            num_sampled=SAMPLED,
            sample_alpha=ALPHA,
            batch_size=SLOTS,
        )
        self.data = self._sessions()
        with importing(checkout):
            import gru4rec_pytorch

            self.module = gru4rec_pytorch
            self.theirs = gru4rec_pytorch.GRU4Rec(
                layers=[DIM],
                loss=their_name,
                batch_size=SLOTS,
                dropout_p_embed=self.ours.config.embedding_dropout,
                dropout_p_hidden=self.ours.config.hidden_dropout,
                learning_rate=self.ours.config.learning_rate,
                sample_alpha=ALPHA,
                n_sample=SAMPLED,
                n_epochs=1,
                bpreg=self.ours.config.regularisation,
                elu_param=self.ours.config.elu,
                logq=self.ours.config.logq,
                device=torch.device("cpu"),
            )
        # The port counts a full batch's targets even when the last sessions no longer fill one; the original does not.
        corrected = self.theirs.loss_function
        self.theirs.loss_function = lambda score, items, _: corrected(score, items, len(score))
        self.item_ids = torch.from_numpy(self.data["ItemId"].unique())  # the reference numbers items as they appear
        self.samples: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.result: dict[str, float] = {}

    def _sessions(self) -> pd.DataFrame:
        """The training parts, timed so that the reference takes them in our order."""
        train, generator = toys.split().train, Streams(self.ours.streams.seed).torch("shuffle")
        order = torch.randperm(toys.NUM_USERS, generator=generator).tolist()
        rows = [(rank, int(item), rank) for rank, user in enumerate(order) for item in train.of_user(user)]
        return pd.DataFrame(rows, columns=["SessionId", "ItemId", "Time"])

    def differences(self) -> dict[str, float]:
        model, samples = self.module.GRU4RecModel, self.samples
        initialise = model._reset_weights_to_compatibility_mode
        with (
            patch.object(model, "_reset_weights_to_compatibility_mode", lambda theirs: self._start(theirs, initialise)),
            patch.object(self.module.SampleCache, "get_sample", lambda _: samples.pop(0)),
            patch.object(torch, "tensor", _tensor_of_series(torch.tensor)),
            contextlib.ExitStack() as self.training,
        ):
            self.theirs.fit(self.data)
        losses = (torch.stack(each) for each in (self.losses, self.their_losses))
        self.result["losses of all steps"] = relative_difference(*losses)
        weights = self._weights(self.theirs.model)
        return self.result | {"update": weights.update_difference(self.before), "scores": self._ranking()}

    def _weights(self, theirs: Any) -> Weights:
        shared = {}
        for name, parameter in theirs.named_parameters():
            shared[name] = self._by_item(name, parameter.detach())
            if parameter.grad is not None:
                shared[name].grad = self._by_item(name, parameter.grad.to_dense())
        return Weights(dict(self.ours.module.named_parameters()), shared, NAMES)

    def _by_item(self, name: str, value: Tensor) -> Tensor:
        """Rows of an item table under our ids, zeros for padding and for items that training lacks."""
        if name not in ("Wy.weight", "By.weight"):
            return value.clone()
        return value.new_zeros(toys.NUM_ITEMS + 1, value.shape[1]).index_copy(0, self.item_ids, value)

    def _start(self, theirs: Any, initialise: Callable[[Any], None]) -> None:
        """Called when the reference sets its initial weights: move them, and let ours run its epoch from the same."""
        initialise(theirs)
        self.result[INITIAL] = self._weights(theirs).initial_difference()
        scramble(theirs)
        weights = self._weights(theirs)
        weights.copy()
        self.before, self.first = weights.values(), {}
        index_of = torch.zeros(toys.NUM_ITEMS + 1, dtype=torch.long)
        index_of[self.item_ids] = torch.arange(len(self.item_ids))
        original = self.ours._sample

        def sample() -> Tensor:
            sampled_N = original()
            self.samples.append(index_of[sampled_N])
            return sampled_N

        with patch.object(self.ours, "_sample", sample):
            for step in self.ours.batches():
                self.losses.append(self.ours.training_step(step)["loss"])
                if not self.first:
                    self.first = {n: p.grad.clone() for n, p in self.ours.module.named_parameters()}
        watch = backward_losses(lambda: self._compare_gradients(theirs))
        self.their_losses = self.training.enter_context(watch)

    def _compare_gradients(self, theirs: Any) -> None:
        """Gradients of the first step."""
        weights = self._weights(theirs)
        for name, parameter in self.ours.module.named_parameters():
            parameter.grad = self.first[name]
        self.result["gradients"] = weights.gradient_difference()

    def _ranking(self) -> float:
        """Scores after whole histories, of items that training has."""
        history_BL, users = toys.histories(), torch.arange(toys.NUM_USERS)
        index_of = dict(zip(self.item_ids.tolist(), range(len(self.item_ids)), strict=True))
        with torch.no_grad(), evaluation_mode(self.ours.module):
            score = self.ours.score(history_BL, users, UserNoise.single(toys.NUM_USERS, toys.MAX_LEN))
            rows = []
            for history in history_BL.tolist():
                state = [torch.zeros(1, DIM)]
                for item in (index_of[item] for item in history if item in index_of):
                    row = self.theirs.model.forward(torch.tensor([item]), state, None)
                rows.append(row[0])
        return relative_difference(score[:, self.item_ids], torch.stack(rows))
