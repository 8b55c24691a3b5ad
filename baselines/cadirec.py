"""CaDiRec: SASRec with a contrastive loss between views whose masked items a context-aware denoiser replaced.

Cui et al., "Context-aware Diffusion-based Contrastive Learning for Sequential Recommendation", CIKM 2024,
arXiv 2405.09369. Reference: ziqiangcui/CaDiRec 870f0dd (no licence).

Deviations, each an option or pinned by a test:
- Replacements come from one pass of the denoiser at a random step, as released; the paper's text has a reverse chain.
- The views read a detached item table, as released: the contrastive loss never trains it.
- Padding is neither a class nor a candidate for replacement, and the spare mask id and the reference's unused bias
  are left out; there, a drawn padding id would hide a position from both views.
- Terms of weight 0 are skipped, and the reference's MSE, which has weight 0 and is NaN in a batch without masked
  positions, is left out.
- Every user is evaluated and the epoch is chosen by validation; the reference drops the last batch and chooses none.
- Negatives avoid a user's training items; the reference's avoid the held-out items too, which leaks them.
- The denoiser's relative attention is written out below after transformers 4.45.2's DeBERTa.
- `loss: softmax` is the tuned variant: cross-entropy over all items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.compute import Compute
from harness.gaussian import GaussianProcess
from harness.layers import (
    Dropout,
    FeedForward,
    MultiHeadAttention,
    causal_key_mask,
    merge_heads,
    sinusoidal,
    split_heads,
)
from harness.learner import SingleLossLearner
from harness.losses import binary_cross_entropy, softmax_cross_entropy
from harness.negatives import NegativeSampler
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, SequenceBatch, SequenceSampler, length_slices


@dataclass(frozen=True)
class Config:
    """Defaults are the reference's for Amazon (configs/cadirec_config_beauty.py) unless a comment says otherwise."""

    embedding_dim: int = 64
    num_blocks: int = 2
    num_heads: int = 2  # of recommender and denoiser
    inner_dim: int = 128  # of both feed-forwards
    max_len: int = 50  # 200 for ML-1M
    dropout: float = 0.5  # 0.1 for ML-1M
    denoiser_blocks: int = 2  # 1 for ML-1M
    denoiser_dropout: float = 0.2
    num_steps: int = 1000
    mask_rate: float = 0.1  # rho
    num_candidates: int = 10  # best items of a position, of which a view takes one
    contrast_weight: float = 0.1  # alpha
    denoise_weight: float = 0.2  # beta, 0.1 for ML-1M
    loss: Literal["binary", "softmax"] = "binary"  # one uniform negative per position, or all items
    pieces: Literal["last", "all"] = "last"  # the last max_len + 1 training items, or every next-item target
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    length_slices: int = 4  # ours: groups of similar length that a batch is encoded in, on a CPU

    def __post_init__(self) -> None:
        sizes = ("embedding_dim", "num_blocks", "num_heads", "inner_dim", "max_len", "denoiser_blocks")
        for name in (*sizes, "num_candidates", "batch_size", "length_slices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.embedding_dim % self.num_heads == 0, "num_heads", self.num_heads, "divisors of embedding_dim")
        require(self.embedding_dim % 2 == 0, "embedding_dim", self.embedding_dim, "even numbers (cosines and sines)")
        require(self.num_steps >= 2, "num_steps", self.num_steps, "2 or more")
        require(0 < self.mask_rate < 1, "mask_rate", self.mask_rate, "between 0 and 1")
        for name in ("dropout", "denoiser_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to but not including 1")
        for name in ("contrast_weight", "denoise_weight", "learning_rate", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


def square_root_schedule(num_steps: int) -> NDArray[np.float64]:
    """Betas for alpha_bar(u) = 1 - sqrt(u + 0.0001), each at most 0.999."""
    alpha_bar = 1.0 - np.sqrt(np.arange(num_steps + 1) / num_steps + 1e-4)
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


class Residuals(nn.Module):
    """What follows attention in a post-norm block: x <- LN(x + Drop(attended)), then the same with a feed-forward."""

    def __init__(self, config: Config, dropout: float) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.feed_forward = FeedForward(dim, config.inner_dim, 0.0, approximate="none")
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.norm_attention(x + self.dropout(attended))
        return self.norm_feed_forward(x + self.dropout(self.feed_forward(x)))


class RelativeAttention(nn.Module):
    """DeBERTa's disentangled attention: content to content, content to position, position to content.

    Logits are [q_i k_j + q_i P(r) + k_j Q(r)] / sqrt(3 d) with r = i - j + k clipped to 0..2 k - 1, k = max_len.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.num_heads, self.reach = config.num_heads, config.max_len
        self.projection = nn.Linear(dim, 3 * dim, bias=False)
        self.query_bias, self.value_bias = (nn.Parameter(torch.zeros(dim)) for _ in range(2))
        self.position_key, self.position_query = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(config.denoiser_dropout)

    def forward(self, x: Tensor, mask: Tensor, relative: Tensor) -> Tensor:
        """x [B, L, D], mask bool [B, 1, L, L], relative [2 k, D]; a query that may read nothing gets zeros."""
        q, k, v = self.projection(x).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.num_heads) for part in (q + self.query_bias, k, v + self.value_bias))
        relative = self.dropout(relative)[None]
        key_p, query_p = (
            split_heads(layer(relative), self.num_heads) for layer in (self.position_key, self.position_query)
        )
        place = torch.arange(x.shape[1], device=x.device)
        index = (place[:, None] - place + self.reach).clamp(0, 2 * self.reach - 1).expand(*q.shape[:2], -1, -1)
        to_position = (q @ key_p.transpose(-1, -2)).gather(-1, index)
        from_position = (k @ query_p.transpose(-1, -2)).gather(-1, index.transpose(-1, -2)).transpose(-1, -2)
        logits = (q @ k.transpose(-1, -2) + to_position + from_position) / math.sqrt(3 * q.shape[-1])
        weight = logits.float().masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1) * mask
        return self.output(merge_heads(self.dropout(weight).to(v.dtype) @ v))


class Denoiser(nn.Module):
    """f(x_t, t): clean item vectors of a sequence from partly noisy ones, looking both ways."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.time = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(config.dropout)
        self.relative = nn.Embedding(2 * config.max_len, dim)
        count = config.denoiser_blocks
        self.attention = nn.ModuleList(RelativeAttention(config) for _ in range(count))
        self.residuals = nn.ModuleList(Residuals(config, config.denoiser_dropout) for _ in range(count))

    def forward(self, x_BLD: Tensor, t_B: Tensor, real_BL: Tensor) -> Tensor:
        time_BD = self.time(sinusoidal(t_B, x_BLD.shape[-1]))
        x_BLD = self.dropout(self.norm(x_BLD + time_BD[:, None]))
        mask = real_BL[:, None, :, None] & real_BL[:, None, None, :]
        for attention, residuals in zip(self.attention, self.residuals, strict=True):
            x_BLD = residuals(x_BLD, attention(x_BLD, mask, self.relative.weight))
        return x_BLD


class Network(nn.Module):
    """Recommender and denoiser around one item table."""

    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.positions = nn.Parameter(torch.empty(config.max_len, dim))  # the last item is always in the last slot
        self.norm, self.dropout = nn.LayerNorm(dim, eps=1e-12), Dropout(config.dropout)
        self.attention = nn.ModuleList(
            MultiHeadAttention(dim, config.num_heads, config.dropout) for _ in range(config.num_blocks)
        )
        self.residuals = nn.ModuleList(Residuals(config, config.dropout) for _ in range(config.num_blocks))
        self.denoiser = Denoiser(config)
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, history_BL: Tensor, *, detached: bool = False, last_only: bool = False) -> Tensor:
        """Hidden state at each position, [B, L, D]; with last_only at the last one, [B, 1, D].

        detached: read a copy of the item table that no gradient reaches.
        """
        table = self.items.weight.detach() if detached else self.items.weight
        x = F.embedding(history_BL, table, padding_idx=0) + self.positions[-history_BL.shape[1] :]
        x = self.dropout(self.norm(x))
        mask = causal_key_mask(history_BL)
        for index, (attention, residuals) in enumerate(zip(self.attention, self.residuals, strict=True)):
            last = slice(-1, None) if last_only and index == len(self.attention) - 1 else slice(None)
            x = residuals(x[:, last], attention(x[:, last], x, mask[:, :, last]))
        return x


class CaDiRec(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.config, self.streams = config, streams
        self.process = GaussianProcess(square_root_schedule(config.num_steps)).to(compute.device)
        data = ResidentSequences.of(view.train, compute.device)
        self.sampler = SequenceSampler(data, max_len=config.max_len, batch_size=config.batch_size, pieces=config.pieces)
        self.negatives = NegativeSampler(data)
        self.slices = 1 if compute.is_cuda else config.length_slices

    def batches(self) -> Iterator[SequenceBatch]:
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def _generator(self, name: str) -> torch.Generator:
        return self.streams.torch(name, self.compute.device)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Recommendation loss plus weighted denoising and contrastive losses."""
        terms = {"recommendation": self.recommendation_loss(batch)}
        total = terms["recommendation"]
        if self.config.contrast_weight > 0 or self.config.denoise_weight > 0:
            terms["denoising"], views_2BL = self.denoise(batch.input_BL)
            total = total + self.config.denoise_weight * terms["denoising"]
        if self.config.contrast_weight > 0:
            view_2BD = [self._summary(view_BL) for view_BL in views_2BL.chunk(2)]
            terms["contrast"] = info_nce(torch.cat(view_2BD).float())
            total = total + self.config.contrast_weight * terms["contrast"]
        return {"loss": total, **terms}

    def recommendation_loss(self, batch: SequenceBatch) -> Tensor:
        """Mean over real positions of the binary or the softmax cross-entropy."""
        parts = batch.slices(self.slices)
        hidden_ND = torch.cat([self.module(part.input_BL)[part.target_BL > 0] for part in parts])
        real_BL = batch.target_BL > 0
        target_N, table = batch.target_BL[real_BL], self.module.items.weight
        if self.config.loss == "softmax":
            return softmax_cross_entropy(hidden_ND, table, target_N)
        negative_N = self.negatives.draw(batch.user_B, (real_BL.shape[1],), self._generator("negatives"))[real_BL]
        scores = [(hidden_ND * self.module.items(item_N)).sum(-1) for item_N in (target_N, negative_N)]
        return binary_cross_entropy(*scores).mean()

    def _groups(self, history_BL: Tensor) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the groups of similar length."""
        for rows, width in length_slices((history_BL > 0).sum(1), self.slices):
            yield rows, slice(-width, None)

    def _summary(self, view_BL: Tensor) -> Tensor:
        """The last position of each row, from a copy of the item table.  [B, L] -> [B, D]"""
        groups = [view_BL[group] for group in self._groups(view_BL)]
        return torch.cat([self.module(group, detached=True, last_only=True)[:, -1] for group in groups])

    def denoise(self, history_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Denoising loss of randomly masked positions, and two views with replacements there.  -> scalar, [2 B, L]

        Sequences in which nothing is masked stay as they are and add zero to the loss, so they are not encoded.
        """
        draw_BL = torch.rand(history_BL.shape, generator=self._generator("masks"), device=history_BL.device)
        masked_BL = (draw_BL < self.config.mask_rate) & (history_BL > 0)
        row_R = masked_BL.any(1).nonzero()[:, 0]
        if len(row_R) == 0:
            return torch.zeros((), device=history_BL.device), history_BL.repeat(2, 1)
        logits_NI = self._reconstruct(history_BL[row_R], masked_BL[row_R])
        nll_N = F.cross_entropy(logits_NI, history_BL[masked_BL] - 1, reduction="none")
        count_N = masked_BL.sum(1)[masked_BL.nonzero()[:, 0]]
        loss = (nll_N / (count_N + 1e-5)).sum() / len(history_BL)
        candidate_NC = logits_NI.detach().topk(self.config.num_candidates).indices + 1
        pick_2N = torch.randint(
            self.config.num_candidates,
            (2, len(candidate_NC), 1),
            generator=self._generator("views"),
            device=history_BL.device,
        )
        views = [history_BL.masked_scatter(masked_BL, candidate_NC.gather(1, pick_N)) for pick_N in pick_2N]
        return loss, torch.cat(views)

    def _reconstruct(self, history_RL: Tensor, masked_RL: Tensor) -> Tensor:
        """Scores of real items at the masked positions, from one pass at a random step.  -> [N, num_items]"""
        t_R = torch.randint(
            self.config.num_steps,
            (len(history_RL),),
            generator=self._generator("diffusion"),
            device=history_RL.device,
        )
        hidden = []
        for rows, columns in self._groups(history_RL):
            history, masked, t = history_RL[rows, columns], masked_RL[rows, columns], t_R[rows]
            x = self.noisy(self.module.items(history), masked, t)
            hidden.append(self.module.denoiser(x, t, history > 0)[masked])
        return (torch.cat(hidden) @ self.module.items.weight[1:].T).float()

    def noisy(self, clean_BLD: Tensor, masked_BL: Tensor, t_B: Tensor) -> Tensor:
        """x_0, an item vector with a little noise, at all positions; x_t at the masked ones.  [B, L, D]"""
        context, noise = (
            torch.randn(clean_BLD.shape, generator=self._generator("diffusion"), device=clean_BLD.device)
            for _ in range(2)
        )
        x_0 = clean_BLD + self.process.noise_std[0] * context
        x_t = self.process.signal[t_B][:, None, None] * x_0 + self.process.noise_std[t_B][:, None, None] * noise
        return torch.where(masked_BL[..., None], x_t, x_0)

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        with self.compute.autocast():
            query_BD = self.module(history_BL, last_only=True)[:, -1]
        return query_BD.float() @ self.module.items.weight.T


def info_nce(view_2BD: Tensor) -> Tensor:
    """Mean cross-entropy of picking each vector's twin, B rows away, among the 2 B - 1 others by inner product."""
    with torch.autocast(view_2BD.device.type, enabled=False):
        similarity = (view_2BD @ view_2BD.T).fill_diagonal_(-torch.inf)
    twin_2B = torch.arange(len(view_2BD), device=view_2BD.device).roll(len(view_2BD) // 2)
    return F.cross_entropy(similarity, twin_2B)


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> CaDiRec:
    config = from_mapping(Config, settings, where="cadirec")
    legal = f"1 to {view.num_items}, the number of items"
    require(config.num_candidates <= view.num_items, "num_candidates", config.num_candidates, legal)
    streams.seed_global("init")
    return CaDiRec(config, view, streams, compute)
