"""Transformer parts whose mathematics nobody disputes, with a fast and a plain way to the same numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout whose masks are cheap on a CPU.

    torch draws CPU masks one Bernoulli value at a time; here one 64-bit draw gives four 16-bit comparisons. The keep
    rate is a multiple of 1/65536 and the scale uses exactly that rate, so the expectation is exact. `plain` (class
    attribute) and GPUs use torch's own dropout.
    """

    plain = False

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout: {p} is out of range, legal values are 0 up to but not including 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.is_cuda or self.plain:
            return F.dropout(x, self.p)
        keep = min(max(round((1.0 - self.p) * 65536), 1), 65535)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        mask = words.view(torch.int16)[: x.numel()].view(x.shape) < keep - 32768
        return x * mask.to(x.dtype).mul_(65536 / keep)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def key_mask(history_BL: Tensor) -> Tensor:
    """Which keys may be read: real items.  [B, L] -> bool [B, 1, 1, L]"""
    return (history_BL > 0)[:, None, None, :]


def causal_key_mask(history_BL: Tensor) -> Tensor:
    """Real items at or before the query; the diagonal stays open so that padded rows are finite.  [B, 1, L, L]"""
    length = history_BL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=history_BL.device).tril()
    diagonal = torch.eye(length, dtype=torch.bool, device=history_BL.device)
    return (key_mask(history_BL) & causal) | diagonal


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: Dropout) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over heads.  q [B, H, Lq, d], k and v [B, H, L, d]; mask True = may be read.

    Fused kernels are used where they are faster: on GPUs, and on CPUs when no dropout is drawn.
    """
    if q.is_cuda or not (dropout.training and dropout.p > 0):
        rate = dropout.p if dropout.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return dropout(logits.softmax(-1)) @ v


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, L, D] -> [B, H, L, D / H]"""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, L, D / H] -> [B, L, D]"""
    return x.transpose(1, 2).flatten(-2)


class MultiHeadAttention(nn.Module):
    """Self-attention with biases and an output projection; queries may be fewer than keys."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: {num_heads} does not divide the width {dim}")
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, context: Tensor, mask: Tensor | None, gate: Tensor | None = None) -> Tensor:
        """query [B, Lq, D] reads context [B, L, D].

        gate [B, Lq, 1]: multiplies the projected queries; a query times 0 attends uniformly to all keys.
        """
        q = self.query(query)
        if gate is not None:
            q = q * gate.to(q.dtype)
        q, k, v = (split_heads(x, self.num_heads) for x in (q, self.key(context), self.value(context)))
        return self.output(merge_heads(attend(q, k, v, mask, self.dropout)))


class FeedForward(nn.Module):
    """Linear, GELU, dropout, linear.  approximate "tanh" or "none" as in torch."""

    def __init__(self, dim: int, inner: int, dropout: float, approximate: str = "tanh") -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.dropout, self.approximate = Dropout(dropout), approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.dropout(F.gelu(self.inner(x), approximate=self.approximate)))


class PreNormBlock(nn.Module):
    """x + Drop(Attn(LN x)), then + Drop(FFN(LN x)), then one more dropout, as DiffuRec's approximator has it."""

    def __init__(self, dim: int, num_heads: int, dropout: float, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, num_heads, dropout)
        self.feed_forward = FeedForward(dim, 4 * dim, dropout)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, *, gate: Tensor | None = None, last_only: bool = False) -> Tensor:
        """[B, L, D] -> [B, L, D], or [B, 1, D] if only the last position will be read."""
        normed = self.norm_attention(x)
        if last_only:
            x, query = x[:, -1:], normed[:, -1:]
            gate = None if gate is None else gate[:, -1:]
            mask = mask[:, :, -1:] if mask is not None and mask.shape[2] > 1 else mask
        else:
            query = normed
        x = x + self.dropout(self.attention(query, normed, mask, gate))
        x = x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        return self.dropout(x)


def sinusoidal(steps_B: Tensor, dim: int) -> Tensor:
    """Cosines then sines of steps at frequencies 10000^(-i / (dim / 2)).  [B] -> [B, dim]"""
    half = dim // 2
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half, device=steps_B.device) / half)
    angle_BD = steps_B.float()[:, None] * frequency
    return torch.cat([angle_BD.cos(), angle_BD.sin()], dim=-1)
