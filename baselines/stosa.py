"""STOSA: items are Gaussians; attention, training and ranking use their Wasserstein-2 distance.

Fan et al., "Sequential Recommendation via Stochastic Self-Attention", WWW 2022, arXiv 2201.06035.
Reference: zfan20/STOSA 1f00ecb (no licence).

Deviations, each an option or pinned by a test:
- The released encoder binds each layer's new mean to a misspelt name and returns the mean it was given, so only the
  covariance ever sees the history. `encoder: paper` passes the mean on (default), `released` drops it.
- A Gaussian is handled as one vector, mean beside standard deviation: the squared distance of two such vectors is W.
- The reference's unused mask row and user margins are left out, and padding is never ranked.
- Negatives avoid a user's training items; the reference's avoid the held-out items too, which leaks them.
- Variances are clamped at 1e-12 before the root, not 1e-24, whose gradient is 5e11.
- `loss: softmax` is the tuned variant: cross-entropy of -W over all items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute import Compute
from harness.layers import Dropout, causal_key_mask, merge_heads, split_heads
from harness.learner import SingleLossLearner
from harness.losses import softmax_cross_entropy
from harness.negatives import NegativeSampler
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, SequenceBatch, SequenceSampler

SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Config:
    """Defaults are the README's command for Beauty unless a comment says otherwise."""

    embedding_dim: int = 64  # of the mean, and again of the covariance
    num_blocks: int = 1
    num_heads: int = 4
    max_len: int = 50  # ours, as for all methods; the README's command has 100
    dropout: float = 0.3
    attention_dropout: float = 0.0
    encoder: Literal["paper", "released"] = "paper"
    loss: Literal["pairwise", "softmax"] = "pairwise"  # one uniform negative per position, or all items
    margin_weight: float = 0.005  # lambda, of the positive-to-negative margin
    pieces: Literal["last", "all"] = "last"  # the last max_len + 1 training items, or every next-item target
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    length_slices: int = 8  # ours: groups of like length that a batch is encoded in, on a CPU; dropout draws differ

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "num_blocks", "num_heads", "max_len", "batch_size", "length_slices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.embedding_dim % self.num_heads == 0, "num_heads", self.num_heads, "divisors of embedding_dim")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to but not including 1")
        for name in ("margin_weight", "learning_rate", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


def positive(x: Tensor) -> Tensor:
    """ELU(x) + 1: how the paper keeps covariances above 0."""
    x = x.float() if x.dtype is torch.bfloat16 else x  # which has no room for a small x beside 1
    return F.elu(x) + 1


def as_point(mean: Tensor, variance: Tensor) -> Tensor:
    """Mean beside standard deviation of a diagonal Gaussian; squared distances of such points are W.  -> [..., 2 D]

    Standard deviations start near 1. Counted from there they are small numbers, and less cancels in products.
    """
    return torch.cat([mean, variance.clamp(min=SMALLEST_VARIANCE).sqrt() - 1], dim=-1)


def wasserstein(point: Tensor, other: Tensor) -> Tensor:
    """Squared Wasserstein-2 distance of points elementwise: |m1 - m2|^2 + |s1 - s2|^2.  [..., 2 D] -> [...]"""
    return (point - other).square().sum(-1)


def closeness(query: Tensor, key: Tensor) -> Tensor:
    """-W of each query to each key, up to a constant per query.  [..., N, 2 D], [..., M, 2 D] -> [..., N, M]

    The query's own square is left out: softmax and ranking ignore it, and without it less cancels. In fp32, as the
    distances decide rankings.
    """
    with torch.autocast(query.device.type, enabled=False):
        return 2 * query @ key.transpose(-1, -2) - key.square().sum(-1).unsqueeze(-2)


class Block(nn.Module):
    """Wasserstein attention over both moments, then a feed-forward of each; one LayerNorm serves both in attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.num_heads, self.updates_mean = config.num_heads, config.encoder == "paper"
        names = ("mean", "variance")
        self.query, self.key, self.value, self.output = (
            nn.ModuleDict({name: nn.Linear(dim, dim) for name in names}) for _ in range(4)
        )
        self.inner = nn.ModuleDict({name: nn.Linear(dim, 4 * dim) for name in names})
        self.outer = nn.ModuleDict({name: nn.Linear(4 * dim, dim) for name in names})
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.norm_outer = nn.ModuleDict({name: nn.LayerNorm(dim, eps=1e-12) for name in names})
        self.dropout, self.attention_dropout = Dropout(config.dropout), Dropout(config.attention_dropout)

    def forward(
        self, mean: Tensor, variance: Tensor, mask: Tensor, *, last_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Two of [B, L, D] -> two of [B, L, D], or [B, 1, D] if only the last position will be read."""
        last = slice(-1, None) if last_only else slice(None)
        query = self._points(self.query, mean[:, last], variance[:, last])
        weight = self._weights(query, self._points(self.key, mean, variance), mask[:, :, last])
        value = split_heads(positive(self.value["variance"](variance)), self.num_heads)
        variance = self._feed_forward("variance", self._context("variance", weight.square() @ value, variance[:, last]))
        if not self.updates_mean:
            return mean[:, last], positive(variance)
        value = split_heads(self.value["mean"](mean), self.num_heads)
        mean = self._feed_forward("mean", self._context("mean", weight @ value, mean[:, last]))
        return mean, positive(variance)

    def _points(self, linear: nn.ModuleDict, mean: Tensor, variance: Tensor) -> Tensor:
        """Gaussians of the heads as points, in fp32.  -> [B, H, L, 2 D / H]"""
        heads = (linear["mean"](mean).float(), positive(linear["variance"](variance)).float())
        return as_point(*(split_heads(each, self.num_heads) for each in heads))

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """softmax of -W / sqrt(D / H) over keys that may be read.  [B, H, Lq, L]"""
        logits = closeness(query, key) / math.sqrt(query.shape[-1] // 2)
        return self.attention_dropout(logits.masked_fill(~mask, -torch.inf).softmax(-1))

    def _context(self, name: str, context: Tensor, residual: Tensor) -> Tensor:
        return self.norm(self.dropout(self.output[name](merge_heads(context))) + residual)

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        return self.norm_outer[name](self.dropout(self.outer[name](F.elu(self.inner[name](x)))) + x)


class Network(nn.Module):
    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.means, self.variances = (nn.Embedding(num_items + 1, dim, padding_idx=0) for _ in range(2))
        self.mean_positions, self.variance_positions = (
            nn.Parameter(torch.empty(config.max_len, dim))
            for _ in range(2)  # the last item is always in the last slot
        )
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, mean=0.01, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, history_BL: Tensor, *, last_only: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and variance at each position, [B, L, D]; with last_only at the last one, [B, 1, D]."""
        length = history_BL.shape[1]
        mean = F.elu(self.dropout(self.norm(self.means(history_BL) + self.mean_positions[-length:])))
        variance = positive(self.dropout(self.norm(self.variances(history_BL) + self.variance_positions[-length:])))
        mask = causal_key_mask(history_BL)
        for index, block in enumerate(self.blocks):
            mean, variance = block(mean, variance, mask, last_only=last_only and index == len(self.blocks) - 1)
        return mean.float(), variance.float()

    def item_points(self, item_N: Tensor | None = None) -> Tensor:
        """Items as points, from the raw tables; all of them by default.  [N, 2 D]"""
        if item_N is None:
            return as_point(self.means.weight, positive(self.variances.weight))
        return as_point(self.means(item_N), positive(self.variances(item_N)))


class STOSA(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.config, self.streams = config, streams
        data = ResidentSequences.of(view.train, compute.device)
        self.sampler = SequenceSampler(data, max_len=config.max_len, batch_size=config.batch_size, pieces=config.pieces)
        self.negatives = NegativeSampler(data)
        self.slices = 1 if compute.is_cuda else config.length_slices

    def batches(self) -> Iterator[SequenceBatch]:
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Mean over real positions of the pairwise or the softmax loss on distances."""
        parts = [(self.module(part.input_BL), part.target_BL > 0) for part in batch.slices(self.slices)]
        query_NP = torch.cat([as_point(mean[real], variance[real]) for (mean, variance), real in parts])
        real_BL = batch.target_BL > 0
        target_N = batch.target_BL[real_BL]
        if self.config.loss == "softmax":
            return {"loss": distance_cross_entropy(query_NP, self.module.item_points(), target_N)}
        generator = self.streams.torch("negatives", self.compute.device)
        negative_N = self.negatives.draw(batch.user_B, (real_BL.shape[1],), generator)[real_BL]
        pairwise_N, margin_N = pairwise_terms(query_NP, *map(self.module.item_points, (target_N, negative_N)))
        pairwise, margin = pairwise_N.mean(), margin_N.mean()
        return {"loss": pairwise + self.config.margin_weight * margin, "pairwise": pairwise, "margin": margin}

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        with self.compute.autocast():
            mean_BLD, variance_BLD = self.module(history_BL, last_only=True)
        return closeness(as_point(mean_BLD[:, -1], variance_BLD[:, -1]), self.module.item_points())


def pairwise_terms(query: Tensor, positive_item: Tensor, negative_item: Tensor) -> tuple[Tensor, Tensor]:
    """BPR on distances, and how far the query is from the positive beyond the negative's distance from it."""
    to_positive, to_negative = wasserstein(query, positive_item), wasserstein(query, negative_item)
    return F.softplus(to_positive - to_negative), F.relu(to_positive - wasserstein(positive_item, negative_item))


def distance_cross_entropy(query_NP: Tensor, points_IP: Tensor, target_N: Tensor) -> Tensor:
    """Mean cross-entropy of -W over all items, as inner products of vectors one longer."""
    query = torch.cat([2 * query_NP, -torch.ones_like(query_NP[:, :1])], dim=1)
    table = torch.cat([points_IP, points_IP.square().sum(1, keepdim=True)], dim=1)
    return softmax_cross_entropy(query, table, target_N)


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> STOSA:
    config = from_mapping(Config, settings, where="stosa")
    streams.seed_global("init")
    return STOSA(config, view, streams, compute)
