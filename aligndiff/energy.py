"""The scalar energy E_phi and its gradient, the score S.

Eq 10 prints an MLP d -> 2d -> 1 under the name S, while eqs 11 and 13 subtract S from vectors of R^d. The one reading
with agreeing shapes: the MLP is the energy, and S(x) = grad_x E(x).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligndiff.config import Config
from harness.layers import Dropout, split_heads
from harness.packing import Packing


class Memory(NamedTuple):
    """Keys, values [B, H, L, D / H] and mask [B, 1, 1, L] of the history that the Transformer energy reads."""

    keys: Tensor
    values: Tensor
    mask: Tensor

    def repeat(self, times: int) -> Memory:
        return Memory(*(torch.cat([part] * times) for part in self))


class Energy(nn.Module):
    """E_phi, always computed in fp32: its gradients are small, and they are differentiated once more."""

    def remember(self, token_ND: Tensor, packing: Packing) -> Memory | None:
        """What the energy needs of the history, computed once per batch; nothing for an MLP."""
        return None

    def forward(self, x_BD: Tensor, memory: Memory | None = None) -> Tensor:
        """[B, D] -> [B]"""
        with torch.autocast(x_BD.device.type, enabled=False):
            return self.value(x_BD.to(self.dtype), memory)

    def value(self, x_BD: Tensor, memory: Memory | None) -> Tensor:
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class MLPEnergy(Energy):
    """Linear layers d -> width -> ... -> 1. With one layer the score is the same vector everywhere."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, width, count = config.embedding_dim, config.energy_expansion * config.embedding_dim, config.energy_layers
        sizes = [dim, *[width] * (count - 1), 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.dropout, self.activation = Dropout(config.energy_dropout), config.energy_activation

    def value(self, x_BD: Tensor, memory: Memory | None) -> Tensor:
        for index, layer in enumerate(self.layers[:-1]):
            x_BD = self._activate(layer(x_BD), index)
        return self.layers[-1](x_BD)[:, 0]

    def _activate(self, x: Tensor, index: int) -> Tensor:
        if self.activation == "gelu":
            return self.dropout(F.gelu(x))
        if self.activation == "elu_gelu":  # released: dropout after the first layer only
            return self.dropout(F.elu(x)) if index == 0 else F.gelu(x)
        raise ValueError(f"energy_activation: {self.activation!r} is not one of 'gelu', 'elu_gelu'")


class TransformerEnergy(Energy):
    """Table 4's "Transformer-based", which the paper does not describe; this one is ours.

    One pre-norm block over the history's tokens and x; the token of x, read off at the end, is the only query needed.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, width = config.embedding_dim, config.energy_expansion * config.embedding_dim
        self.num_heads = config.num_heads
        self.query, self.key, self.value_layer, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_attention, self.norm_feed_forward, self.norm = (nn.LayerNorm(dim) for _ in range(3))
        self.inner, self.outer, self.head = nn.Linear(dim, width), nn.Linear(width, dim), nn.Linear(dim, 1)
        self.dropout = Dropout(config.energy_dropout)

    def remember(self, token_ND: Tensor, packing: Packing) -> Memory:
        """Keys and values of the history, which is given: no gradient into it."""
        real_BL, token_BLD = packing.padded(token_ND.detach())
        with torch.autocast(token_BLD.device.type, enabled=False):
            token_BLD = self.norm_attention(token_BLD.to(self.dtype))
            keys, values = (split_heads(layer(token_BLD), self.num_heads) for layer in (self.key, self.value_layer))
        return Memory(keys, values, real_BL[:, None, None])

    def value(self, x_BD: Tensor, memory: Memory | None) -> Tensor:
        assert memory is not None, "call remember() first"
        x = x_BD[:, None]
        normed = self.norm_attention(x)
        q, k, v = (split_heads(layer(normed), self.num_heads) for layer in (self.query, self.key, self.value_layer))
        # Written out: fused attention kernels have no second derivative.
        logits = q @ memory.keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
        logits = logits.masked_fill(~memory.mask, -torch.inf)
        own = (q * k).sum(-1, keepdim=True) / math.sqrt(q.shape[-1])
        weights = torch.cat([logits, own], -1).softmax(-1)
        read = weights[..., :-1] @ memory.values + weights[..., -1:] * v
        x = x + self.dropout(self.output(read.transpose(1, 2).flatten(-2)))
        x = x + self.dropout(self.outer(self.dropout(F.gelu(self.inner(self.norm_feed_forward(x))))))
        return self.head(self.norm(x))[:, 0, 0]


def make_energy(config: Config) -> Energy | None:
    if config.energy == "none":
        return None
    if config.energy not in ("mlp", "transformer"):
        raise ValueError(f"energy: {config.energy!r} is not one of 'mlp', 'transformer', 'none'")
    energy = MLPEnergy(config) if config.energy == "mlp" else TransformerEnergy(config)
    if config.energy_init == "xavier_uniform":
        for module in energy.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    return energy


def score(energy: Energy, x_BD: Tensor, memory: Memory | None = None, *, create_graph: bool = False) -> Tensor:
    """S(x) = grad_x E(x), also where gradients are switched off around the call.  [B, D] -> [B, D]

    create_graph: keep it differentiable, for losses that contain S.
    """
    # Autocast off here too: on a CPU it would turn the products of the backward pass into bf16.
    with torch.enable_grad(), torch.autocast(x_BD.device.type, enabled=False):
        x_BD = x_BD.float()
        if not x_BD.requires_grad:
            x_BD = x_BD.detach().requires_grad_()
        return torch.autograd.grad(energy(x_BD, memory).sum(), x_BD, create_graph=create_graph)[0]
