"""SASRec: causal self-attention over the history, inner product with the item table.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. Reference: kang205/SASRec e373896.

Deviations, each an option or pinned by a test:
- The paper writes pre-norm residuals; the released code keeps the normalised query as the residual.
  `residual` offers both, default the released one.
- The reference draws users with replacement; here an epoch visits every user once.
- Negatives avoid the user's training items only, as in the reference (S3-Rec's forks also avoid the test item).
- `loss: softmax` is the tuned variant (Klenitskiy and Vasilev, RecSys 2023): cross-entropy over all items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute import Compute
from harness.layers import Dropout, attend, causal_key_mask, merge_heads, split_heads
from harness.learner import SingleLossLearner
from harness.losses import binary_cross_entropy, softmax_cross_entropy
from harness.negatives import NegativeSampler
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, SequenceBatch, SequenceSampler


@dataclass(frozen=True)
class Config:
    """Defaults are those of the reference's main.py; its README names no settings for Amazon Beauty or Toys."""

    embedding_dim: int = 50
    num_blocks: int = 2
    num_heads: int = 1
    max_len: int = 50  # 200 for ML-1M
    dropout: float = 0.5  # 0.2 for ML-1M
    residual: Literal["normalised", "raw"] = "normalised"  # released code, or the paper's pre-norm
    init: Literal["xavier_uniform", "normal"] = "xavier_uniform"  # TensorFlow's default; normal: std 0.02 (tuned)
    loss: Literal["binary", "softmax"] = "binary"  # one uniform negative per position, or all items
    pieces: Literal["last", "all"] = "last"  # the last max_len + 1 training items, or every next-item target
    batch_size: int = 128
    learning_rate: float = 1e-3
    beta2: float = 0.98
    weight_decay: float = 0.0
    length_slices: int = 8  # ours: groups of like length that a batch is encoded in, on a CPU; dropout draws differ

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "num_blocks", "num_heads", "max_len", "batch_size", "length_slices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.embedding_dim % self.num_heads == 0, "num_heads", self.num_heads, "divisors of embedding_dim")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 up to but not including 1")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "0 up to but not including 1")
        for name in ("learning_rate", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


class Block(nn.Module):
    """Attention without output projection, then a feed-forward of the same width, as in the released code."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.num_heads, self.normalised = config.num_heads, config.residual == "normalised"
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, *, last_only: bool = False) -> Tensor:
        """[B, L, D] -> [B, L, D], or [B, 1, D] if only the last position will be read."""
        context = x if self.normalised else self.norm_attention(x)
        if last_only:
            x, mask = x[:, -1:], mask[:, :, -1:]
        query = self.norm_attention(x)
        q, k, v = (
            split_heads(part, self.num_heads) for part in (self.query(query), self.key(context), self.value(context))
        )
        x = merge_heads(attend(q, k, v, mask, self.dropout)) + (query if self.normalised else x)
        normed = self.norm_feed_forward(x)
        hidden = self.dropout(self.outer(self.dropout(F.relu(self.inner(normed)))))
        return hidden + (normed if self.normalised else x)


class Network(nn.Module):
    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.positions = nn.Parameter(torch.empty(config.max_len, dim))  # the last item is always in the last slot
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(dim, eps=1e-8)
        self.dropout = Dropout(config.dropout)
        self._initialise(config.init)

    def _initialise(self, how: str) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter) if how == "xavier_uniform" else nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.items.weight[:1])

    def forward(self, history_BL: Tensor, *, last_only: bool = False) -> Tensor:
        """Hidden state at each position, [B, L, D]; with last_only at the last one, [B, 1, D]."""
        length, dim = history_BL.shape[1], self.items.embedding_dim
        x = self.items(history_BL) * dim**0.5 + self.positions[-length:]
        x = self.dropout(x) * (history_BL > 0)[..., None]
        mask = causal_key_mask(history_BL)
        for index, block in enumerate(self.blocks):
            last = last_only and index == len(self.blocks) - 1
            x = block(x, mask, last_only=last)
            x = x if last else x * (history_BL > 0)[..., None]
        return self.norm(x)


class SASRec(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            betas=(0.9, config.beta2),
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
        """Mean over real positions of the binary or the softmax cross-entropy."""
        parts = [(self.module(part.input_BL), part) for part in batch.slices(self.slices)]
        hidden_ND = torch.cat([hidden_BLD[part.target_BL > 0] for hidden_BLD, part in parts])
        target_N = torch.cat([part.target_BL[part.target_BL > 0] for _, part in parts])
        table = self.module.items.weight
        if self.config.loss == "softmax":
            return {"loss": softmax_cross_entropy(hidden_ND, table, target_N)}
        user_N = torch.repeat_interleave(batch.user_B, (batch.target_BL > 0).sum(1))
        generator = self.streams.torch("negatives", self.compute.device)
        negative_N = self.negatives.draw(user_N, (), generator)
        scores = [(hidden_ND * table[item_N]).sum(-1) for item_N in (target_N, negative_N)]
        return {"loss": binary_cross_entropy(*scores).mean()}

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        with self.compute.autocast():
            query_BD = self.module(history_BL, last_only=True)[:, -1]
        return query_BD.float() @ self.module.items.weight.T


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> SASRec:
    config = from_mapping(Config, settings, where="sasrec")
    streams.seed_global("init")
    return SASRec(config, view, streams, compute)
