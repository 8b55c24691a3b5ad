"""Transformer parts whose mathematics nobody disputes, with a fast and a plain way to the same numbers."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.packing import Packing, key_mask
from harness.products import emulating, native_bf16

NATIVE_BF16 = native_bf16()
PaddingMask = Literal["keys", "queries"]  # what a mask of padding hides, see MultiHeadAttention.packed


class Dropout(nn.Module):
    """Dropout whose masks are cheap on a CPU.

    torch draws CPU masks one Bernoulli value at a time; here one 64-bit draw gives four 16-bit comparisons. The keep
    rate is a multiple of 1/65536 and the scale uses exactly that rate, so the expectation is exact in fp32; in bf16 the
    scale is rounded, which moves the expectation by 0.2 % at most. `plain` (class attribute) and GPUs use torch's own.
    """

    plain = False

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout: {p} is out of range, legal values are 0 up to but not including 1")
        self.p = p

    @property
    def draws(self) -> bool:
        """Whether it does anything at the moment."""
        return self.training and self.p > 0.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.draws:
            return x
        if x.is_cuda or self.plain:
            return F.dropout(x, self.p)
        keep = min(max(round((1.0 - self.p) * 65536), 1), 65535)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        mask = torch.empty(x.shape, dtype=x.dtype)  # compared into: several times faster than to bool and a cast
        torch.lt(words.view(torch.int16)[: x.numel()].view(x.shape), keep - 32768, out=mask)
        return x * mask.mul_(65536 / keep)


def causal_key_mask(history_BL: Tensor) -> Tensor:
    """Real items at or before the query; the diagonal stays open so that padded rows are finite.  [B, 1, L, L]"""
    length = history_BL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=history_BL.device).tril()
    diagonal = torch.eye(length, dtype=torch.bool, device=history_BL.device)
    return (key_mask(history_BL) & causal) | diagonal


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: Dropout) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over heads.  q [B, H, Lq, d], k and v [B, H, L, d]; mask True = may be read.

    Fused kernels are used where they are faster: on GPUs, and on CPUs when no dropout is drawn. There they compute and
    return fp32: bf16's take about twice as long for a history of a few items.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout.p if dropout.training else 0.0)
    if not dropout.draws:
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    logits = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return dropout(logits.softmax(-1)) @ v


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, L, D] -> [B, H, L, D / H]"""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, L, D / H] -> [B, L, D]"""
    return x.transpose(1, 2).flatten(-2)


def token_weights(q_BD: Tensor, k_ND: Tensor, packing: Packing, num_heads: int, scale: float) -> Tensor:
    """softmax(q k^T / scale) for one query per row, token by token, so that no query meets another row.  fp32 [N, H]"""
    product_ND = packing.spread(q_BD).float() * k_ND
    return packing.softmax(product_ND.unflatten(-1, (num_heads, -1)).sum(-1) / scale)


def weigh_tokens(a_NH: Tensor, v_ND: Tensor) -> Tensor:
    """Each head of a token's value times the head's weight.  [N, H], [N, D] -> [N, D]"""
    return (a_NH[..., None] * v_ND.unflatten(-1, (a_NH.shape[1], -1))).flatten(-2)


class MultiHeadAttention(nn.Module):
    """Attention with biases and an output projection; queries may be fewer than keys."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: {num_heads} does not divide the width {dim}")
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.output = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """query [B, Lq, D] reads what mask allows of context [B, L, D]."""
        parts = (self.query(query), *project(context, self.key, self.value))
        q, k, v = (split_heads(part, self.num_heads) for part in parts)
        return self.output(merge_heads(attend(q, k, v, mask, self.dropout)))

    def packed(self, x_ND: Tensor, packing: Packing, padding: PaddingMask, *, last_only: bool = False) -> Tensor:
        """Self-attention of packed rows.  [N, D] -> [N, D], or [B, D] if only the newest item of each row asks.

        padding "keys" hides padded keys. "queries" hides none and lets a padded query read all positions uniformly,
        for which its projection is multiplied by 0.
        """
        if last_only:
            q = self.query(x_ND[packing.last_B])
            k, v = project(x_ND, self.key, self.value)
        else:
            q, k, v = project(x_ND, self.query, self.key, self.value)
        masks = packing.key_masks
        if padding == "queries":
            item = packing.item_N[packing.last_B] if last_only else packing.item_N
            q, masks = q * (item > 0)[:, None].to(q.dtype), [None] * len(masks)
        if last_only and packing.tiled:
            scale = math.sqrt(q.shape[-1] / self.num_heads)
            a_NH = self.dropout(token_weights(q, k, packing, self.num_heads, scale))
            return self.output(packing.total(weigh_tokens(a_NH, v)))
        queries, read = packing.rows(q) if last_only else packing.blocks(q), []
        for *parts, mask in zip(queries, packing.blocks(k), packing.blocks(v), masks, strict=True):
            heads = (split_heads(part, self.num_heads) for part in parts)
            read.append(merge_heads(attend(*heads, mask, self.dropout)))
        return self.output(torch.cat([part.flatten(0, 1) for part in read]))


def project(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """All layers of the same x in one product; what torch's fused in-projection does.  [..., D] -> each [..., D]"""
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return F.linear(x, weight, bias).chunk(len(layers), -1)


class FeedForward(nn.Module):
    """Linear, GELU, dropout, linear.  approximate "tanh" or "none" as in torch."""

    def __init__(self, dim: int, inner: int, dropout: float, approximate: str = "tanh") -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.dropout, self.approximate = Dropout(dropout), approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.dropout(self._activated(x)))

    def _activated(self, x: Tensor) -> Tensor:
        """GELU(W x + b); in one pass where nothing needs a gradient and the processor multiplies bf16.

        The operator is private to torch and what torch.compile emits for these two lines.
        """
        if torch.is_grad_enabled() or not x.is_cpu or not _multiplies_bf16():
            return F.gelu(self.inner(x), approximate=self.approximate)
        x, weight, bias = (part.bfloat16() for part in (x, self.inner.weight, self.inner.bias))
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], self.approximate)


def _multiplies_bf16() -> bool:
    """Whether the CPU makes its products in bf16 at this moment, and by itself."""
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast and NATIVE_BF16 and not emulating()


class PreNormBlock(nn.Module):
    """x + Drop(Attn(LN x)), then + Drop(FFN(LN x)), then one more dropout, as DiffuRec's approximator has it."""

    def __init__(self, dim: int, num_heads: int, dropout: float, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, num_heads, dropout)
        self.feed_forward = FeedForward(dim, 4 * dim, dropout)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.dropout = Dropout(dropout)

    def forward(self, x_ND: Tensor, packing: Packing, padding: PaddingMask, *, last_only: bool = False) -> Tensor:
        """[N, D] -> [N, D], or [B, D] if only the newest item of each row will be read."""
        read = self.attention.packed(self.norm_attention(x_ND), packing, padding, last_only=last_only)
        x = (x_ND[packing.last_B] if last_only else x_ND) + self.dropout(read)
        x = x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        return self.dropout(x)


def last_hidden(blocks: nn.ModuleList, x_ND: Tensor, packing: Packing, padding: PaddingMask) -> Tensor:
    """The newest item of each row after all blocks; the last block computes nothing else.  [N, D] -> [B, D]"""
    for block in blocks[:-1]:
        x_ND = block(x_ND, packing, padding)
    return blocks[-1](x_ND, packing, padding, last_only=True)


def sinusoidal(steps_B: Tensor, dim: int) -> Tensor:
    """Cosines then sines of steps at frequencies 10000^(-i / (dim / 2)).  [B] -> [B, dim]"""
    half = dim // 2
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half, device=steps_B.device) / half)
    angle_BD = steps_B.float()[:, None] * frequency
    return torch.cat([angle_BD.cos(), angle_BD.sin()], dim=-1)
