"""Floors and controls: methods without training that every trained one must beat, and an oracle that none can.

random, repeat-last-item, popularity, first-order Markov counts, item k-nearest-neighbours, oracle. Counts come from
the training part only; the history at test time includes the validation item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from harness.compute import Compute
from harness.settings import from_mapping, require
from harness.split import Sequences, TrainingView
from harness.streams import Streams, UserNoise


@dataclass(frozen=True)
class Config:
    kind: Literal["random", "last", "popularity", "markov", "knn", "oracle"]
    max_len: int = 50
    neighbour_items: int = 10  # knn: most recent history items that vote
    decay: float = 0.8  # knn: weight of an item is decay ** age, age 0 the most recent

    def __post_init__(self) -> None:
        require(self.max_len >= 1, "max_len", self.max_len, "1 or more")
        require(self.neighbour_items >= 1, "neighbour_items", self.neighbour_items, "1 or more")
        require(0 < self.decay <= 1, "decay", self.decay, "above 0 up to 1")


def popularity(train: Sequences) -> np.ndarray:
    """Training actions per item.  [I]"""
    return np.bincount(train.items, minlength=train.num_items + 1).astype(np.float64)


def tie_break(train: Sequences) -> np.ndarray:
    """A distinct value in [0, 1) per item: more popular items higher, equally popular ones by smaller id.  [I]"""
    item = np.arange(train.num_items + 1)
    order = np.lexsort((-item, popularity(train)))
    value = np.empty(len(item))
    value[order] = item / len(item)
    return value


def transitions(train: Sequences) -> scipy.sparse.csr_matrix:
    """How often item j directly follows item i in a training sequence.  [I, I]"""
    follows = np.ones(len(train.items), dtype=bool)
    follows[train.offsets[:-1]] = False
    after = np.flatnonzero(follows)
    pairs = (np.ones(len(after)), (train.items[after - 1], train.items[after]))
    return scipy.sparse.csr_matrix(pairs, shape=(train.num_items + 1,) * 2)


def cosine_co_occurrence(train: Sequences) -> scipy.sparse.csr_matrix:
    """Cosine between the user sets of items, 0 on the diagonal.  [I, I]"""
    user = np.repeat(np.arange(train.num_users), train.lengths)
    seen = scipy.sparse.csr_matrix((np.ones(len(user)), (user, train.items)), (train.num_users, train.num_items + 1))
    norm = np.sqrt(np.maximum(np.asarray(seen.multiply(seen).sum(0)).ravel(), 1.0))
    scaled = seen @ scipy.sparse.diags(1.0 / norm)
    similarity = (scaled.T @ scaled).tocsr()
    similarity.setdiag(0.0)
    return similarity


class Floor:
    """A learner with nothing to learn. Scores are counts; popularity breaks their ties, so none are left."""

    def __init__(self, config: Config, view: TrainingView, compute: Compute) -> None:
        self.config, self.compute, self.max_len = config, compute, config.max_len
        self.module = nn.Module()
        self.is_oracle = config.kind == "oracle"  # the run then scores with the targets themselves
        self.num_items = view.num_items
        self.tie_break = tie_break(view.train)
        if config.kind == "markov":
            self.table = transitions(view.train)
        elif config.kind == "knn":
            self.table = cosine_co_occurrence(view.train)

    def batches(self) -> Iterator[Any]:
        return iter(())

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        raise AssertionError("a floor is never trained")

    def end_epoch(self, metrics: Mapping[str, float] | None) -> None: ...

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        kind, size = self.config.kind, self.num_items + 1
        if kind == "random":
            return noise.normal(size)
        history = history_BL.cpu().numpy()
        if kind == "popularity":
            scores = np.tile(self.tie_break, (len(history), 1))
        elif kind == "last":
            scores = np.tile(self.tie_break, (len(history), 1))
            scores[np.arange(len(history)), history[:, -1]] += 1.0
        elif kind == "markov":
            scores = self.table[history[:, -1]].toarray() + self.tie_break
        elif kind == "knn":
            scores = self._neighbours(history) + 1e-9 * self.tie_break
        else:
            raise ValueError(f"kind: {kind!r} cannot be scored without targets")
        return torch.from_numpy(scores).to(self.compute.device)

    def _neighbours(self, history: np.ndarray) -> np.ndarray:
        """Similarity to the last items of the history, recent ones weighing more.  [B, I]"""
        recent = history[:, -self.config.neighbour_items :]
        weight = self.config.decay ** np.arange(recent.shape[1])[::-1] * (recent > 0)
        rows = np.repeat(np.arange(len(recent)), recent.shape[1])
        votes = scipy.sparse.csr_matrix((weight.ravel(), (rows, recent.ravel())), (len(recent), self.num_items + 1))
        return (votes @ self.table).toarray()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> Floor:
    return Floor(from_mapping(Config, settings, where="floors"), view, compute)
