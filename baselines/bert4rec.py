"""BERT4Rec: a bidirectional Transformer that fills in masked items; the next item is a mask at the end.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer",
CIKM 2019. Reference: FeiSun/BERT4Rec 615eaf2.

Deviations, each an option or pinned by a test:
- The reference trains on the validation item too and validates nothing; here it trains on the training part and stops
  on the validation item, as every method of the suite.
- The reference writes ten masked copies of each window and one with only the last item masked, fixed for good. Here
  each epoch draws fresh masks, and one window in eleven masks only its last item.
- Adam has bias correction (the reference's has none: a difference of the first thousand steps).
- The reference counts positions from the oldest item, so the mask's place moves with the length; `positions: from_end`
  ties them to the mask, for the tuned variant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute import Compute
from harness.layers import Dropout, FeedForward, MultiHeadAttention
from harness.learner import SingleLossLearner
from harness.losses import cross_entropy_with_bias
from harness.packing import key_mask
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, length_slices


@dataclass(frozen=True)
class Config:
    """Defaults are the reference's for Beauty (README, run_beauty.sh, bert_train/bert_config_beauty_64.json)."""

    embedding_dim: int = 64
    num_blocks: int = 2
    num_heads: int = 2
    inner_dim: int = 256
    max_len: int = 50  # slots, the mask included; 200 for ML-1M
    dropout: float = 0.5  # 0.2 for ML-1M
    attention_dropout: float = 0.2
    positions: Literal["from_start", "from_end"] = "from_start"
    mask_rate: float = 0.6  # rho; 0.2 for ML-1M
    max_masked: int = 30  # M; 40 for ML-1M
    last_only_rate: float = 1 / 11  # share of windows with only their last item masked: one copy in eleven
    window_stride: float = 0.1  # of max_len, for users longer than it; 0.5 for ML-1M
    batch_size: int = 256
    length_slices: int = 8  # ours: groups of similar length that a batch is encoded in, on a CPU
    learning_rate: float = 1e-4
    weight_decay: float = 0.01  # decoupled, not on biases and norms
    warmup_steps: int = 100
    total_steps: int | None = 400_000  # the rate falls linearly to 0 at this step; null = constant
    clip_norm: float | None = 5.0

    def __post_init__(self) -> None:
        for name in (
            "embedding_dim",
            "num_blocks",
            "num_heads",
            "inner_dim",
            "max_masked",
            "batch_size",
            "length_slices",
        ):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.max_len >= 2, "max_len", self.max_len, "2 or more (an item and the mask)")
        require(self.embedding_dim % self.num_heads == 0, "num_heads", self.num_heads, "divisors of embedding_dim")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to but not including 1")
        for name in ("mask_rate", "window_stride"):
            require(0 < getattr(self, name) <= 1, name, getattr(self, name), "above 0 up to 1")
        require(0 <= self.last_only_rate <= 1, "last_only_rate", self.last_only_rate, "0 to 1")
        for name in ("learning_rate", "weight_decay", "warmup_steps"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        legal = f"null or more than warmup_steps ({self.warmup_steps})"
        require(
            self.total_steps is None or self.total_steps > self.warmup_steps, "total_steps", self.total_steps, legal
        )
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "null or above 0")


@dataclass(frozen=True)
class MaskedGroup:
    """Windows of similar length: input with masks, and the hidden items (0 elsewhere), both [B, L]."""

    input_BL: Tensor
    target_BL: Tensor


class WindowSampler:
    """Users' training sequences; longer than `max_len` they are cut from the end backwards, windows overlapping."""

    def __init__(self, data: ResidentSequences, config: Config) -> None:
        self._data, self._config = data, config
        self._groups = 1 if data.items_N.is_cuda else config.length_slices
        stride = max(1, int(config.window_stride * config.max_len))
        excess_U = (data.lengths_U - config.max_len).clamp(min=0)
        count_U = (1 + -(-excess_U // stride)) * (data.lengths_U > 0)
        user_S = torch.repeat_interleave(torch.arange(len(count_U), device=count_U.device), count_U)
        back_S = torch.arange(len(user_S), device=count_U.device) - (count_U.cumsum(0) - count_U)[user_S]
        self._first_S = data.offsets_U[user_S]
        # The oldest window starts at the first item and is as long as the others.
        shortest_S = data.lengths_U[user_S].clamp(max=config.max_len)
        self._end_S = torch.maximum(data.offsets_U[user_S + 1] - back_S * stride, self._first_S + shortest_S)

    @property
    def num_samples(self) -> int:
        return len(self._end_S)

    def epoch(self, generator: torch.Generator) -> Iterator[list[Tensor]]:
        order = torch.randperm(self.num_samples, generator=generator, device=generator.device)
        for chosen in order.to(self._end_S.device).split(self._config.batch_size):
            yield self.batch(chosen, self._groups)

    def batch(self, chosen_B: Tensor, groups: int) -> list[Tensor]:
        """Left-padded windows in groups of similar length: the same mathematics as together, with less padding."""
        first_B, end_B = self._first_S[chosen_B], self._end_S[chosen_B]
        length_B, order_B = (end_B - first_B).clamp(max=self._config.max_len).sort(stable=True)
        first_B, end_B = first_B[order_B], end_B[order_B]
        parts = length_slices(length_B, groups)
        return [self._data.window(first_B[rows], end_B[rows], width) for rows, width in parts]


def choose_masked(window_BL: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Which items to hide: min(max_masked, max(1, round(rate * n))) distinct ones, or only the last.  bool [B, L]"""
    device, is_item_BL = generator.device, window_BL > 0
    draw_BL = torch.rand(window_BL.shape, generator=generator, device=device).to(window_BL.device)
    last_only_B = torch.rand(len(window_BL), generator=generator, device=device).to(window_BL.device)
    draw_BL = draw_BL.masked_fill(~is_item_BL, 2.0)  # padding comes after all items
    rank_BL = draw_BL.argsort(dim=1).argsort(dim=1)
    count_B = (is_item_BL.sum(1) * config.mask_rate).round().clamp(min=1, max=config.max_masked)
    masked_BL = (rank_BL < count_B[:, None]) & is_item_BL
    last_BL = torch.zeros_like(masked_BL)
    last_BL[:, -1] = True
    return torch.where((last_only_B < config.last_only_rate)[:, None], last_BL, masked_BL)


class Block(nn.Module):
    """Post-norm: LN(X + Drop(Attn X)), then LN(X + Drop(W_2 gelu(W_1 X)))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.attention = MultiHeadAttention(dim, config.num_heads, config.attention_dropout)
        self.feed_forward = FeedForward(dim, config.inner_dim, 0.0, approximate="none")
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, *, only_BL: Tensor | None = None) -> Tensor:
        """[B, L, D] -> [B, L, D], or [N, D] where `only_BL` is true if no other position will be read."""
        x = x + self.dropout(self.attention(x, x, mask))
        x = self.norm_attention(x if only_BL is None else x[only_BL])
        return self.norm_feed_forward(x + self.dropout(self.feed_forward(x)))


class Network(nn.Module):
    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.mask_id, self.from_start = num_items + 1, config.positions == "from_start"
        self.items = nn.Embedding(num_items + 2, dim)  # padding, items, mask
        self.positions = nn.Embedding(config.max_len, dim)
        self.segment = nn.Parameter(torch.empty(dim))
        self.norm, self.dropout = nn.LayerNorm(dim, eps=1e-12), Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.head, self.norm_head = nn.Linear(dim, dim), nn.LayerNorm(dim, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(num_items + 2))
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 or name == "segment":
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, input_BL: Tensor, read_BL: Tensor) -> Tensor:
        """Queries of the slots where read_BL is true, [N, D]. Padding may stand anywhere: it is never attended to."""
        is_real_BL = input_BL > 0
        if self.from_start:
            place_BL = (is_real_BL.cumsum(1) - 1).clamp(min=0)
        else:
            last = self.positions.num_embeddings
            place_BL = torch.arange(last - input_BL.shape[1], last, device=input_BL.device)
        x = self.dropout(self.norm(self.items(input_BL) + self.positions(place_BL) + self.segment))
        mask = key_mask(input_BL)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        x = self.blocks[-1](x, mask, only_BL=read_BL)
        return self.norm_head(F.gelu(self.head(x)))


class BERT4Rec(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len - 1,  # the mask takes a slot
            compute=compute,
            learning_rate=config.learning_rate,
            clip_norm=config.clip_norm,
        )
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.module.named_parameters():
            groups[parameter.dim() > 1 or name == "segment"].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": config.weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            eps=1e-6,  # optimization.py
            fused=True,
        )
        self.config, self.streams = config, streams
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.sampler = WindowSampler(ResidentSequences.of(view.train, compute.device), config)

    def _rate(self, step: int) -> float:
        """Share of the learning rate: linear warm-up, then linear decay to 0."""
        rate = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        total = self.config.total_steps
        return rate if total is None else rate * max(0.0, 1 - step / total)

    def batches(self) -> Iterator[list[MaskedGroup]]:
        generator = self.streams.torch("masks", self.compute.device)
        for windows in self.sampler.epoch(self.streams.torch("shuffle")):
            yield [self._hide(window_BL, generator) for window_BL in windows]

    def _hide(self, window_BL: Tensor, generator: torch.Generator) -> MaskedGroup:
        hidden_BL = choose_masked(window_BL, self.config, generator)
        return MaskedGroup(window_BL.masked_fill(hidden_BL, self.module.mask_id), window_BL * hidden_BL)

    def loss(self, batch: list[MaskedGroup]) -> dict[str, Tensor]:
        """Mean cross-entropy over masked slots; as released the classes are the whole vocabulary, specials included."""
        query_ND = torch.cat([self.module(group.input_BL, group.target_BL > 0) for group in batch])
        target_N = torch.cat([group.target_BL[group.target_BL > 0] for group in batch])
        table = self.module.items.weight
        return {"loss": cross_entropy_with_bias(query_ND, table, self.module.bias, target_N, padding=True)}

    def training_step(self, batch: list[MaskedGroup]) -> dict[str, Tensor]:
        terms = super().training_step(batch)
        self.schedule.step()
        return terms

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        input_BL = F.pad(history_BL[:, -self.max_len :], (0, 1), value=self.module.mask_id)
        with self.compute.autocast():
            query_BD = self.module(input_BL, input_BL == self.module.mask_id)
        items = slice(0, self.module.mask_id)
        return torch.addmm(self.module.bias[items], query_BD.float(), self.module.items.weight[items].T)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.schedule.load_state_dict(state["schedule"])


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> BERT4Rec:
    config = from_mapping(Config, settings, where="bert4rec")
    streams.seed_global("init")
    return BERT4Rec(config, view, streams, compute)
