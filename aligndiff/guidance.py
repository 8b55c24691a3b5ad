"""Multi-level condition guidance: from the embedded history to one vector h per sample."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from aligndiff.config import Config
from harness.layers import Dropout, split_heads

EPS = 1e-12  # of every LayerNorm, as DiffuRec


def query_index(real_BL: Tensor, reading: str) -> Tensor:
    """Position whose features are h.  [B, L] -> [B]

    "length" is the released defect: index len - 1 counts from the left, where left-padded rows hold padding.
    """
    if reading == "last":
        return torch.full((len(real_BL),), real_BL.shape[1] - 1, device=real_BL.device)
    if reading == "length":
        return real_BL.sum(1) - 1
    raise ValueError(f"guidance_index: {reading!r} is not one of 'last', 'length'")


def readable_keys(real_BL: Tensor, index_B: Tensor, keys: str) -> Tensor:
    """Keys that the query at index_B may read: none after it, and itself always.  bool [B, L]"""
    position_L = torch.arange(real_BL.shape[1], device=real_BL.device)
    causal_BL = position_L <= index_B[:, None]
    if keys == "all":
        return causal_BL
    if keys == "real":
        return (causal_BL & real_BL) | (position_L == index_B[:, None])
    raise ValueError(f"guidance_keys: {keys!r} is not one of 'real', 'all'")


def take(x_BLD: Tensor, index_B: Tensor) -> Tensor:
    """One position per row.  [B, L, D], [B] -> [B, 1, D]"""
    return x_BLD[torch.arange(len(x_BLD), device=x_BLD.device), index_B][:, None]


class OrthogonalMatrix(nn.Module):
    """A square matrix that is orthogonal at every step, by construction and not by penalty."""

    def __init__(self, dim: int, orthogonal_map: str) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        parametrizations.orthogonal(self.linear, orthogonal_map=orthogonal_map)

    def forward(self) -> Tensor:
        """[D, D], always fp32: products in bf16 would leave U^T U off the identity by 1e-2."""
        with torch.autocast(self.linear.parametrizations.weight.original.device.type, enabled=False):
            return self.linear.weight


class Guidance(nn.Module):
    """What both variants share: learned positions, right-aligned so that the last item has the last one."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        dim = config.embedding_dim
        self.positions = nn.Parameter(torch.randn(config.max_len, dim) * config.position_std)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.inner = nn.Linear(dim, config.guidance_expansion * dim)
        self.outer = nn.Linear(config.guidance_expansion * dim, dim)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        nn.init.constant_(self.norm.weight, config.guidance_gain)

    def place(self, embedded_BLD: Tensor) -> Tensor:
        """X = E[x] + P, eq 1, with embedding dropout."""
        return self.embedding_dropout(embedded_BLD + self.positions[-embedded_BLD.shape[1] :])

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.outer(F.relu(self.inner(x))))

    def forward(self, embedded_BLD: Tensor, real_BL: Tensor, item_norm: nn.LayerNorm) -> Tensor:
        """h [B, D] from the embedded history; item_norm is the predictor's, which the released code shares."""
        index_B = query_index(real_BL, self.config.guidance_index)
        return self.at(embedded_BLD, real_BL, index_B, item_norm)

    def at(self, embedded_BLD: Tensor, real_BL: Tensor, index_B: Tensor, item_norm: nn.LayerNorm) -> Tensor:
        """Features at one position per row; nothing after that position is read."""
        raise NotImplementedError


class OrthogonalGuidance(Guidance):
    """Eqs 1 to 4 as printed."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.query_basis = OrthogonalMatrix(config.embedding_dim, config.orthogonal_map)  # U; its column blocks are U_i
        self.key_basis = OrthogonalMatrix(config.embedding_dim, config.orthogonal_map)  # V of eq 3

    def at(self, embedded_BLD: Tensor, real_BL: Tensor, index_B: Tensor, item_norm: nn.LayerNorm) -> Tensor:
        x = self.place(embedded_BLD)
        x_last = take(x, index_B)
        q = split_heads(self.query(x_last) @ self.query_basis(), self.config.guidance_heads)
        k = split_heads(self.key(x) @ self.key_basis(), self.config.guidance_heads)
        logits_BH1L = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        mask_BL = readable_keys(real_BL, index_B, self.config.guidance_keys)
        a_BH1L = logits_BH1L.masked_fill(~mask_BL[:, None, None], -torch.inf).softmax(-1)
        # eq 3: the value is not split by head, so the heads' attention weights add up.
        y = self.dropout(a_BH1L).sum(1) @ self.value(x) + x_last
        return self.norm(y + self.feed_forward(y))[:, 0]  # eq 4


class OrdinaryGuidance(Guidance):
    """The released code's attention: normalised queries, un-normalised keys and values, three more LayerNorms."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.norm_query, self.norm_attention, self.norm_feed_forward = (
            nn.LayerNorm(config.embedding_dim) for _ in range(3)
        )

    def at(self, embedded_BLD: Tensor, real_BL: Tensor, index_B: Tensor, item_norm: nn.LayerNorm) -> Tensor:
        context = self.place(embedded_BLD)
        is_real_B11 = real_BL.gather(1, index_B[:, None])[..., None]
        query = self.norm_query(item_norm(take(context, index_B)) * is_real_B11)
        heads = self.config.guidance_heads
        q, k, v = (split_heads(x, heads) for x in (self.query(query), self.key(context), self.value(context)))
        logits_BH1L = q @ k.transpose(-1, -2) / math.sqrt(self.config.embedding_dim)
        mask_BL = readable_keys(real_BL, index_B, self.config.guidance_keys)
        a_BH1L = self.dropout(logits_BH1L.masked_fill(~mask_BL[:, None, None], -torch.inf).softmax(-1))
        y = self.norm_attention((a_BH1L @ v).transpose(1, 2).flatten(-2) + query)
        y = self.norm_feed_forward(y + self.feed_forward(y))
        # Features of padding are multiplied by 0 before the last LayerNorm: h of such a row is that norm's bias.
        return self.norm(y * is_real_B11)[:, 0]


def make_guidance(config: Config) -> Guidance | None:
    if config.guidance == "orthogonal":
        return OrthogonalGuidance(config)
    if config.guidance == "ordinary":
        return OrdinaryGuidance(config)
    if config.guidance == "none":
        return None
    raise ValueError(f"guidance: {config.guidance!r} is not one of 'orthogonal', 'ordinary', 'none'")


def constant_guidance_fraction(lengths_N: NDArray[np.integer], max_len: int = 50) -> float:
    """Share of inputs whose released h is one constant vector: those whose index len - 1 is a padding position.

    lengths_N: number of history items of each input.
    """
    length_N = np.minimum(lengths_N, max_len)
    return float((length_N - 1 < max_len - length_N).mean())
