"""Multi-level condition guidance: from the embedded history to one vector h per sample."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from aligndiff.config import Config
from harness.layers import Dropout, merge_heads, split_heads, token_weights, weigh_tokens
from harness.packing import Packing

EPS = 1e-12  # of the last LayerNorm, as DiffuRec


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
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=config.guidance_bias) for _ in range(3))
        self.inner = nn.Linear(dim, config.guidance_expansion * dim)
        self.outer = nn.Linear(config.guidance_expansion * dim, dim)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        nn.init.constant_(self.norm.weight, config.guidance_gain)

    def place(self, embedded_ND: Tensor, packing: Packing) -> Tensor:
        """X = E[x] + P, eq 1, with embedding dropout."""
        return self.embedding_dropout(embedded_ND + self.positions[len(self.positions) - 1 - packing.age_N])

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.outer(F.relu(self.inner(x))))

    def forward(self, embedded_ND: Tensor, packing: Packing, item_norm: nn.LayerNorm) -> Tensor:
        """h [B, D] from the embedded history; item_norm is the predictor's, which the released code shares.

        Features at one position per row; nothing after that position is read.
        """
        if packing.tiled:
            assert not self.config.reads_padding, "tiles hold no padding that could be read"
            return self.at(packing.last_B, self.place(embedded_ND, packing), packing, [], item_norm)
        real = [history_RW > 0 for history_RW in packing.histories]
        index = [query_index(real_RW, self.config.guidance_index) for real_RW in real]
        masks = [readable_keys(*pair, self.config.guidance_keys) for pair in zip(real, index, strict=True)]
        token_B = packing.first_B + torch.cat(index)
        return self.at(token_B, self.place(embedded_ND, packing), packing, masks, item_norm)

    def at(
        self, token_B: Tensor, x_ND: Tensor, packing: Packing, masks: list[Tensor], item_norm: nn.LayerNorm
    ) -> Tensor:
        """h from the features X at token_B, which may read the tokens that masks allow, [R, W] per group.

        In tiles it may read all of its row, and there are no masks.
        """
        raise NotImplementedError

    def attend(
        self, q_BD: Tensor, k_ND: Tensor, v_ND: Tensor, packing: Packing, masks: list[Tensor], *, scale: float
    ) -> Tensor:
        """One query per row reads its row.  -> [B, D]"""
        heads, read = self.config.guidance_heads, []
        if packing.tiled:
            a_NH = self.dropout(token_weights(q_BD, k_ND, packing, heads, scale))
            return packing.total(self.weigh_tokens(a_NH, v_ND))
        groups = zip(packing.rows(q_BD), packing.blocks(k_ND), packing.blocks(v_ND), masks, strict=True)
        for q, k, v, mask_RW in groups:
            logits_RH1W = split_heads(q, heads) @ split_heads(k, heads).transpose(-1, -2) / scale
            a_RH1W = logits_RH1W.masked_fill(~mask_RW[:, None, None], -torch.inf).softmax(-1)
            read.append(self.weigh(self.dropout(a_RH1W), v)[:, 0])
        return torch.cat(read)

    def weigh(self, a_RH1W: Tensor, v_RWD: Tensor) -> Tensor:
        """Values under attention weights.  -> [R, 1, D]"""
        raise NotImplementedError

    def weigh_tokens(self, a_NH: Tensor, v_ND: Tensor) -> Tensor:
        """The same token by token, before a row's are added up.  -> [N, D]"""
        raise NotImplementedError


class OrthogonalGuidance(Guidance):
    """Eqs 1 to 4 as printed."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.query_basis = OrthogonalMatrix(config.embedding_dim, config.orthogonal_map)  # U; its column blocks are U_i
        self.key_basis = OrthogonalMatrix(config.embedding_dim, config.orthogonal_map)  # V of eq 3

    def at(
        self, token_B: Tensor, x_ND: Tensor, packing: Packing, masks: list[Tensor], item_norm: nn.LayerNorm
    ) -> Tensor:
        x_BD = x_ND[token_B]
        q_BD, k_ND = self.query(x_BD) @ self.query_basis(), self.key(x_ND) @ self.key_basis()
        scale = math.sqrt(self.config.embedding_dim / self.config.guidance_heads)
        y_BD = self.attend(q_BD, k_ND, self.value(x_ND), packing, masks, scale=scale) + x_BD
        return self.norm(y_BD + self.feed_forward(y_BD))  # eq 4

    def weigh(self, a_RH1W: Tensor, v_RWD: Tensor) -> Tensor:
        return a_RH1W.sum(1) @ v_RWD  # eq 3: the value is not split by head, so the heads' attention weights add up

    def weigh_tokens(self, a_NH: Tensor, v_ND: Tensor) -> Tensor:
        return a_NH.sum(1, keepdim=True) * v_ND


class OrdinaryGuidance(Guidance):
    """The released code's attention: normalised queries, un-normalised keys and values, three more LayerNorms."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.norm_query, self.norm_attention, self.norm_feed_forward = (
            nn.LayerNorm(config.embedding_dim) for _ in range(3)
        )

    def at(
        self, token_B: Tensor, x_ND: Tensor, packing: Packing, masks: list[Tensor], item_norm: nn.LayerNorm
    ) -> Tensor:
        is_real_B1 = (packing.item_N[token_B] > 0)[:, None]
        query_BD = self.norm_query(item_norm(x_ND[token_B]) * is_real_B1)
        q_BD, k_ND, v_ND = self.query(query_BD), self.key(x_ND), self.value(x_ND)
        read_BD = self.attend(q_BD, k_ND, v_ND, packing, masks, scale=math.sqrt(self.config.embedding_dim))
        y_BD = self.norm_attention(read_BD + query_BD)
        y_BD = self.norm_feed_forward(y_BD + self.feed_forward(y_BD))
        # Features of padding are multiplied by 0 before the last LayerNorm: h of such a row is that norm's bias.
        return self.norm(y_BD * is_real_B1)

    def weigh(self, a_RH1W: Tensor, v_RWD: Tensor) -> Tensor:
        return merge_heads(a_RH1W @ split_heads(v_RWD, self.config.guidance_heads))

    def weigh_tokens(self, a_NH: Tensor, v_ND: Tensor) -> Tensor:
        return weigh_tokens(a_NH, v_ND)


def make_guidance(config: Config) -> Guidance | None:
    if config.guidance == "orthogonal":
        return OrthogonalGuidance(config)
    if config.guidance == "ordinary":
        return OrdinaryGuidance(config)
    if config.guidance == "none":
        return None
    raise ValueError(f"guidance: {config.guidance!r} is not one of 'orthogonal', 'ordinary', 'none'")
