"""ComiRec: several interest vectors per user, an item's score is that of its best interest.

Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020. Reference: THUDM/ComiRec a576eed.
`interests` "attention" is ComiRec-SA, "routing" ComiRec-DR.

Deviations, each an option or pinned by a test:
- The reference draws a random user and a random target with four items before it; here every prefix of at least one
  item is a sample, once per epoch: half of Beauty's users have no more than four training items.
- The reference samples negatives log-uniformly over ids sorted by popularity; here the popularity rank is explicit,
  draws are with replacement, and the correction is the logarithm of exactly that distribution.
- Slots count from the oldest item of the window, as released; `slots: end` ties them to the newest (tuned).
- `loss: softmax` is the tuned variant: cross-entropy over all items.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute import Compute
from harness.layers import Dropout
from harness.learner import SingleLossLearner
from harness.losses import softmax_cross_entropy
from harness.negatives import draw_weighted
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import PrefixBatch, PrefixSampler, ResidentSequences, align_left


@dataclass(frozen=True)
class Config:
    """Defaults are the reference's for Amazon Books (src/train.py, README)."""

    interests: Literal["attention", "routing"] = "attention"
    num_interests: int = 4
    embedding_dim: int = 64
    max_len: int = 20
    routing_rounds: int = 3
    slots: Literal["start", "end"] = "start"  # where slot 0 is: the oldest item, or slots tied to the newest
    dropout: float = 0.0  # on the item vectors; the reference has none
    loss: Literal["sampled", "softmax"] = "sampled"
    sampling: Literal["popularity_rank", "uniform"] = "popularity_rank"  # log((r + 2) / (r + 1)) of rank r
    num_negatives: int = 1280  # ten per sample of a batch, shared by the batch
    batch_size: int = 128
    length_slices: int = 4  # ours: groups of similar length that a batch is encoded in, on a CPU
    learning_rate: float = 1e-3  # 5e-3 for routing (README)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        sizes = ("num_interests", "embedding_dim", "max_len", "routing_rounds", "num_negatives", "batch_size")
        for name in (*sizes, "length_slices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 up to but not including 1")
        require(self.learning_rate >= 0, "learning_rate", self.learning_rate, "0 or more")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")


class Attention(nn.Module):
    """SA: K attention maps over positions; the values carry no position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.positions = nn.Parameter(torch.empty(config.max_len, dim))
        self.inner, self.outer = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, config.num_interests)

    def forward(self, h_BLD: Tensor, is_item_BL: Tensor, slots: slice) -> Tensor:
        """[B, L, D] -> [B, K, D]"""
        logits_BLK = self.outer(torch.tanh(self.inner(h_BLD + self.positions[slots]))).float()
        # A finite floor: a row without items averages zero vectors instead of being NaN.
        logits_BLK = logits_BLK.masked_fill(~is_item_BL[..., None], torch.finfo(torch.float32).min)
        return logits_BLK.softmax(1).to(h_BLD.dtype).transpose(1, 2) @ h_BLD


class Routing(nn.Module):
    """DR: capsules; every slot has its own map to every interest, and every item splits itself among interests."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.rounds, self.num_interests = config.routing_rounds, config.num_interests
        self.weight = nn.Parameter(torch.empty(config.max_len, config.embedding_dim, self._width(config)))

    @staticmethod
    def _width(config: Config) -> int:
        return config.num_interests * config.embedding_dim

    def forward(self, h_BLD: Tensor, is_item_BL: Tensor, slots: slice) -> Tensor:
        """[B, L, D] -> [B, K, D]"""
        u_BLKD = torch.einsum("bld,lde->ble", h_BLD, self.weight[slots]).unflatten(-1, (self.num_interests, -1)).float()
        fixed_BLKD, logits_BLK = u_BLKD.detach(), torch.zeros(u_BLKD.shape[:3], device=h_BLD.device)
        for _ in range(self.rounds - 1):
            v_BKD = squash(torch.einsum("blk,blkd->bkd", coupling(logits_BLK, is_item_BL), fixed_BLKD))
            logits_BLK = logits_BLK + torch.einsum("blkd,bkd->blk", fixed_BLKD, v_BKD)
        return squash(torch.einsum("blk,blkd->bkd", coupling(logits_BLK, is_item_BL), u_BLKD))


def coupling(logits_BLK: Tensor, is_item_BL: Tensor) -> Tensor:
    """How each item divides itself among the interests; nothing of padding."""
    return logits_BLK.softmax(2) * is_item_BL[..., None]


def squash(y: Tensor) -> Tensor:
    """Keep the direction, bring the length into 0..1."""
    square = y.square().sum(-1, keepdim=True)
    return square / (1 + square) * y / (square + 1e-9).sqrt()


class Network(nn.Module):
    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items + 1, config.embedding_dim, padding_idx=0)
        self.from_start = config.slots == "start"
        self.dropout = Dropout(config.dropout)
        self.extract = Attention(config) if config.interests == "attention" else Routing(config)
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            elif parameter.dim() == 3:
                nn.init.normal_(parameter, std=1.0)  # the reference's initialiser of the routing maps
            else:
                nn.init.xavier_uniform_(parameter)  # TensorFlow's default
        nn.init.zeros_(self.items.weight[:1])

    def forward(self, history_BL: Tensor) -> Tensor:
        """Interests of left-padded histories, [B, K, D]."""
        length = history_BL.shape[1]
        slots = slice(-length, None)
        if self.from_start:
            history_BL, slots = align_left(history_BL)[0], slice(length)
        return self.extract(self.dropout(self.items(history_BL)), history_BL > 0, slots)


def best_interest(interest_BKD: Tensor, target_BD: Tensor) -> Tensor:
    """The interest nearest to the target; only it receives a gradient.  [B, K, D], [B, D] -> [B, D]"""
    chosen_B = torch.einsum("bkd,bd->bk", interest_BKD, target_BD).argmax(1)
    return interest_BKD[torch.arange(len(chosen_B), device=chosen_B.device), chosen_B]


def sampled_softmax(
    query_BD: Tensor, table_ID: Tensor, target_B: Tensor, negative_N: Tensor, log_q_I: Tensor
) -> Tensor:
    """Mean cross-entropy of the target against shared negatives, each score corrected by its log q.

    A negative that happens to be a row's target is left out of that row.
    """
    positive_B1 = (query_BD * table_ID[target_B]).sum(1, keepdim=True) - log_q_I[target_B, None]
    negative_BN = query_BD @ table_ID[negative_N].T - log_q_I[negative_N]
    negative_BN = negative_BN.masked_fill(negative_N == target_B[:, None], -torch.inf)
    return (torch.cat([positive_B1, negative_BN], dim=1).logsumexp(1, keepdim=True) - positive_B1).mean()


def sampling_distribution(count_I: Tensor, how: str) -> Tensor:
    """Probability of each item as a negative; the padding's is 0.  [I] -> [I]"""
    if how == "uniform":
        p_I = torch.ones_like(count_I, dtype=torch.float64)
    elif how == "popularity_rank":
        rank_I = torch.empty_like(count_I)
        rank_I[count_I[1:].argsort(descending=True, stable=True) + 1] = torch.arange(
            len(count_I) - 1, device=count_I.device
        )
        rank_I[0] = 0
        p_I = ((rank_I + 2).double() / (rank_I + 1)).log()
    else:
        raise ValueError(f"sampling: {how!r} is not one of 'popularity_rank', 'uniform'")
    p_I[0] = 0
    return p_I / p_I.sum()


class ComiRec(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.config, self.streams = config, streams
        self.slices = 1 if compute.is_cuda else config.length_slices
        data = ResidentSequences.of(view.train, compute.device)
        self.sampler = PrefixSampler(data, max_len=config.max_len, batch_size=config.batch_size)
        p_I = sampling_distribution(torch.bincount(data.items_N, minlength=view.num_items + 1), config.sampling)
        # Summed on the CPU: on a GPU torch has had no sum of this kind that it calls deterministic.
        self._cumulative_I, self._log_q_I = p_I.cpu().cumsum(0).to(p_I.device), p_I.log().float()

    def batches(self) -> Iterator[PrefixBatch]:
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def loss(self, batch: PrefixBatch) -> dict[str, Tensor]:
        """The objective, and how alike the interests of a user are (mean cosine of pairs, for the history file)."""
        interest_BKD = torch.cat([self.module(history_BL) for _, history_BL in batch.slices(self.slices)]).float()
        table = self.module.items.weight
        query_BD = best_interest(interest_BKD, table[batch.target_B])
        if self.config.loss == "softmax":
            loss = softmax_cross_entropy(query_BD, table, batch.target_B)
        elif self.config.loss == "sampled":
            loss = sampled_softmax(query_BD, table, batch.target_B, self._negatives(), self._log_q_I)
        else:
            raise ValueError(f"loss: {self.config.loss!r} is not one of 'sampled', 'softmax'")
        return {"loss": loss, "interest_cosine": mean_cosine(interest_BKD.detach()).mean()}

    def _negatives(self) -> Tensor:
        generator = self.streams.torch("negatives", self.compute.device)
        return draw_weighted(self._cumulative_I, self.config.num_negatives, generator)

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        with self.compute.autocast():
            interest_BKD = self.module(history_BL)
        table = self.module.items.weight.T
        return functools.reduce(torch.maximum, (query.float() @ table for query in interest_BKD.unbind(1)))

    def probe(self, history_BL: Tensor, target_B: Tensor, user_B: Tensor, noise: UserNoise) -> dict[str, Tensor]:
        """How alike a user's interests are, for the run record."""
        return {"interest_cosine": mean_cosine(self.module(history_BL).float())}


def mean_cosine(interest_BKD: Tensor) -> Tensor:
    """Mean cosine of the pairs of different interests; 1 if there is one interest only.  [B, K, D] -> [B]"""
    count = interest_BKD.shape[1]
    if count == 1:
        return interest_BKD.new_ones(len(interest_BKD))
    unit_BKD = F.normalize(interest_BKD, dim=-1)
    return (unit_BKD.sum(1).square().sum(-1) - count) / (count * (count - 1))


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> ComiRec:
    config = from_mapping(Config, settings, where="comirec")
    streams.seed_global("init")
    return ComiRec(config, view, streams, compute)
