"""Caser: the last L items as an image under horizontal and vertical filters, beside a vector of the user.

Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", WSDM 2018.
Reference: graytowne/caser_pytorch c4e10e4.

Deviations, each an option or pinned by a test:
- Paper and docstring say negatives per target; the released code draws `num_negatives` per window. Followed: the code.
- The authors split 70/10/20 by time and predict several items; the suite leaves one out. Missing targets of users
  shorter than T carry no loss.
- `loss: softmax` is the tuned variant: cross-entropy over all items through the same 2d-wide output table.
- The padding row stays an ordinary trainable vector, as released: the model has no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute import Compute
from harness.layers import Dropout
from harness.learner import SingleLossLearner
from harness.losses import cross_entropy_with_bias
from harness.negatives import NegativeSampler
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, pad_left


@dataclass(frozen=True)
class Config:
    """Defaults are the reference's for ML-1M (train_caser.py)."""

    embedding_dim: int = 50
    max_len: int = 5  # L, the window
    num_targets: int = 3  # T; 1 on Amazon, where with 3 a third of the users would have an input of padding only
    num_horizontal: int = 16  # filters of each height 1..L
    num_vertical: int = 4
    dropout: float = 0.5
    loss: Literal["binary", "softmax"] = "binary"
    num_negatives: int = 3  # per window, whatever T
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6  # L2 in the gradient, on every row of the tables

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "max_len", "num_targets", "num_horizontal", "num_vertical", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.num_negatives >= 1, "num_negatives", self.num_negatives, "1 or more")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 up to but not including 1")
        require(self.learning_rate >= 0, "learning_rate", self.learning_rate, "0 or more")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True)
class WindowBatch:
    """history_BL: the L items before the targets; target_BT: the next T, both left-padded with 0."""

    history_BL: Tensor
    target_BT: Tensor
    user_B: Tensor


class WindowSampler:
    """Every L + T consecutive items of a user's training part; a shorter user gives one left-padded window."""

    def __init__(self, data: ResidentSequences, config: Config) -> None:
        self._data, self._config = data, config
        length_U = data.lengths_U
        span = config.max_len + config.num_targets
        count_U = (length_U - span + 1).clamp(min=1) * (length_U > 0)
        self._user_S = torch.repeat_interleave(torch.arange(len(count_U), device=length_U.device), count_U)
        index_S = torch.arange(len(self._user_S), device=length_U.device) - (count_U.cumsum(0) - count_U)[self._user_S]
        self._start_S = data.offsets_U[self._user_S]
        self._end_S = self._start_S + torch.minimum(index_S + span, length_U[self._user_S])

    @property
    def num_samples(self) -> int:
        return len(self._user_S)

    def epoch(self, generator: torch.Generator) -> Iterator[WindowBatch]:
        order = torch.randperm(self.num_samples, generator=generator, device=generator.device)
        for chosen in order.to(self._user_S.device).split(self._config.batch_size):
            yield self.batch(chosen)

    def batch(self, chosen_B: Tensor) -> WindowBatch:
        start_B, end_B = self._start_S[chosen_B], self._end_S[chosen_B]
        history_BL = self._data.window(start_B, end_B - self._config.num_targets, self._config.max_len)
        target_BT = self._data.window(start_B, end_B, self._config.num_targets)
        return WindowBatch(history_BL, target_BT, self._user_S[chosen_B])


class Network(nn.Module):
    def __init__(self, config: Config, num_items: int, num_users: int) -> None:
        super().__init__()
        dim, length = config.embedding_dim, config.max_len
        self.items, self.users = nn.Embedding(num_items + 1, dim), nn.Embedding(num_users, dim)
        # A k x d filter is a linear map of the k d values under it, an L x 1 filter one of the L values of a column.
        self.horizontal = nn.ModuleList(
            nn.Linear(height * dim, config.num_horizontal) for height in range(1, length + 1)
        )
        self.vertical = nn.Linear(length, config.num_vertical)
        self.dropout = Dropout(config.dropout)
        self.join = nn.Linear(config.num_vertical * dim + config.num_horizontal * length, dim)
        self.output, self.bias = nn.Embedding(num_items + 1, 2 * dim), nn.Parameter(torch.zeros(num_items + 1))
        for table in (self.items, self.users, self.output):
            nn.init.normal_(table.weight, std=1 / table.embedding_dim)

    def forward(self, history_BL: Tensor, user_B: Tensor) -> Tensor:
        """Query of a full window and its user, [B, 2 D]."""
        x_BLD = self.items(history_BL)
        rows_BN = x_BLD.flatten(1)
        features = [self.vertical(x_BLD.transpose(1, 2)).flatten(1)]
        for height, filters in enumerate(self.horizontal, start=1):
            under = rows_BN.unfold(1, height * x_BLD.shape[2], x_BLD.shape[2])  # [B, L - height + 1, height D]
            features.append(F.relu(filters(under)).amax(1))
        z_BD = F.relu(self.join(self.dropout(torch.cat(features, dim=1))))
        return torch.cat([z_BD, self.users(user_B).to(z_BD.dtype)], dim=1)


class Caser(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items, view.num_users),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.config, self.streams = config, streams
        data = ResidentSequences.of(view.train, compute.device)
        self.sampler, self.negatives = WindowSampler(data, config), NegativeSampler(data)

    def batches(self) -> Iterator[WindowBatch]:
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def loss(self, batch: WindowBatch) -> dict[str, Tensor]:
        query_BD = self.module(batch.history_BL, batch.user_B)
        if self.config.loss == "binary":
            return {"loss": self._binary(query_BD, batch)}
        if self.config.loss == "softmax":
            return {"loss": self._softmax(query_BD, batch.target_BT)}
        raise ValueError(f"loss: {self.config.loss!r} is not one of 'binary', 'softmax'")

    def _binary(self, query_BD: Tensor, batch: WindowBatch) -> Tensor:
        """Mean over the targets plus mean over the negatives, as released."""
        generator = self.streams.torch("negatives", self.compute.device)
        negative_BN = self.negatives.draw(batch.user_B, (self.config.num_negatives,), generator)
        count = batch.target_BT.shape[1]
        item_BN = torch.cat([batch.target_BT, negative_BN], dim=1)
        score_BN = torch.einsum("bd,bnd->bn", query_BD.float(), self.module.output(item_BN)) + self.module.bias[item_BN]
        positive = F.softplus(-score_BN[:, :count])[batch.target_BT > 0]
        return positive.mean() + F.softplus(score_BN[:, count:]).mean()

    def _softmax(self, query_BD: Tensor, target_BT: Tensor) -> Tensor:
        """Mean over the targets."""
        row_N, column_N = (target_BT > 0).nonzero(as_tuple=True)
        target_N = target_BT[row_N, column_N]
        return cross_entropy_with_bias(query_BD[row_N], self.module.output.weight, self.module.bias, target_N)

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        with self.compute.autocast():
            query_BD = self.module(pad_left(history_BL, self.max_len), user_B)
        return torch.addmm(self.module.bias, query_BD.float(), self.module.output.weight.T)


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> Caser:
    config = from_mapping(Config, settings, where="caser")
    streams.seed_global("init")
    return Caser(config, view, streams, compute)
