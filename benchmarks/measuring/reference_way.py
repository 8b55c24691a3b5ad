"""DiffuRec and AlignDiff the way the reference implementation computes them: what the fast paths are compared with.

Same weights and same mathematics, none of the short cuts: windows padded to max_len; GELU and LayerNorm written out;
q, k and v projected one by one; -1e9 written into [B, H, L, L] scores; torch's own dropout; every position through
every block; guidance at every position; the whole score matrix; one guidance branch after the other; fp32.

Written anew from the equations and from what was measured of WHUIR/DiffuRec f6f70c9; none of its code is here. In two
points, together about 1% of its step, it is faster than the reference: data is resident instead of in a DataLoader of
lists, and lambda is drawn by randn instead of normal(full, full).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligndiff import losses
from aligndiff.energy import score
from aligndiff.learner import AlignDiffLearner
from aligndiff.sampler import correction, noise_std
from baselines.diffurec import PADDING, DiffuRec
from harness.layers import Dropout, MultiHeadAttention, PreNormBlock, merge_heads, split_heads
from harness.learner import Learner
from harness.packing import Packing
from harness.streams import UserNoise
from harness.windows import PrefixBatch


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def layer_norm(x: Tensor, part: nn.LayerNorm) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    return part.weight * ((x - mean) / torch.sqrt(variance + part.eps)) + part.bias


def drop(x: Tensor, part: Dropout) -> Tensor:
    return F.dropout(x, part.p, part.training)


def attention(part: MultiHeadAttention, x_BLD: Tensor, mask: Tensor) -> Tensor:
    q, k, v = (split_heads(layer(x_BLD), part.num_heads) for layer in (part.query, part.key, part.value))
    logits_BHLL = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -1e9)
    return part.output(merge_heads(drop(logits_BHLL.softmax(-1), part.dropout) @ v))


def block(part: PreNormBlock, x_BLD: Tensor, mask: Tensor) -> Tensor:
    x_BLD = x_BLD + drop(attention(part.attention, layer_norm(x_BLD, part.norm_attention), mask), part.dropout)
    wide = part.feed_forward
    inner = drop(gelu(wide.inner(layer_norm(x_BLD, part.norm_feed_forward))), wide.dropout)
    x_BLD = x_BLD + drop(wide.outer(inner), part.dropout)
    return drop(x_BLD, part.dropout)


def transformer(parts: nn.ModuleList, x_BLD: Tensor, history_BL: Tensor, padding: str) -> Tensor:
    """All positions after all blocks.  padding "keys": padded keys are hidden; "queries": padded rows are blanked."""
    real = history_BL > 0
    mask = real[:, None, None, :] if padding == "keys" else real[:, None, :, None]
    for part in parts:
        x_BLD = block(part, x_BLD, mask)
    return x_BLD


def cross_entropy(query_BD: Tensor, table_ID: Tensor, target_B: Tensor, *, padding: bool) -> Tensor:
    scores_BI = query_BD @ table_ID.T
    return F.cross_entropy(scores_BI, target_B) if padding else F.cross_entropy(scores_BI[:, 1:], target_B - 1)


@dataclass(frozen=True)
class Noise:
    """Random values of a DiffuRec step, named as in AlignDiff's TrainingNoise, which serves as well."""

    step_B: Tensor
    target_BD: Tensor
    normal_for: Callable[[Packing], Tensor]


class ReferenceWay(ABC):
    """A learner's weights, trained and applied without any short cut."""

    def __init__(self, learner: Any) -> None:
        self.learner, self.net, self.config = learner, learner.module, learner.config
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.learning_rate, fused=False)

    @abstractmethod
    def loss(self, batch: PrefixBatch, noise: Any) -> Tensor:
        """The loss of a batch that is padded to max_len."""

    @abstractmethod
    def draw(self, size: int) -> Any:
        """The noise of one training step."""

    @abstractmethod
    def generate(self, history_BL: Tensor, noise: UserNoise, *, full: bool = True, stop: int = 0) -> Tensor:
        """x after the reverse chain, or before its last `stop` steps.  [B, max_len] -> [B, D]

        full: draw lambda for padding too, as the reference does; without it `noise` gives what the fast path draws.
        """

    def training_step(self, batch: PrefixBatch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch, self.draw(len(batch.target_B))).backward()
        self.optimizer.step()

    def lambda_for(self, history_BL: Tensor, noise: Any) -> Tensor:
        """Standard normal values for each position and feature.  [B, L, D]"""
        return noise.normal_for(Packing([history_BL])).unflatten(0, history_BL.shape)


class DiffuRecWay(ReferenceWay):
    learner: DiffuRec

    def draw(self, size: int) -> Noise:
        dim = self.config.embedding_dim
        step_B = torch.randint(self.config.num_steps, (size,))
        return Noise(step_B, torch.randn(size, dim), lambda packing: torch.randn(len(packing.item_N), dim))

    def tokens(self, history_BL: Tensor) -> Tensor:
        return layer_norm(drop(self.net.items(history_BL), self.net.embedding_dropout), self.net.norm_items)

    def predict(self, token_BLD: Tensor, history_BL: Tensor, normal_BLD: Tensor, noisy_BD: Tensor) -> Tensor:
        lambda_BLD = self.config.delta + self.config.delta * normal_BLD
        x_BLD = token_BLD + lambda_BLD * noisy_BD[:, None]
        x_BLD = transformer(self.net.blocks, x_BLD, history_BL, PADDING[self.config.mask])
        return layer_norm(drop(x_BLD, self.net.dropout), self.net.norm)[:, -1]

    def loss(self, batch: PrefixBatch, noise: Noise) -> Tensor:
        x_t_BD = self.learner.process.diffuse(self.net.items(batch.target_B), noise.step_B, noise.target_BD)
        noisy_BD = x_t_BD + self.net.time_embedding(noise.step_B)
        normal_BLD = self.lambda_for(batch.history_BL, noise)
        query_BD = self.predict(self.tokens(batch.history_BL), batch.history_BL, normal_BLD, noisy_BD)
        return cross_entropy(query_BD, self.net.items.weight, batch.target_B, padding=self.config.padding_class)

    @torch.no_grad()
    def generate(self, history_BL: Tensor, noise: UserNoise, *, full: bool = True, stop: int = 0) -> Tensor:
        dim, posterior = self.config.embedding_dim, self.learner.process.posterior
        variance_T = self.learner.process.beta_T if self.config.variance == "beta" else posterior.variance
        token_BLD, x_BD = self.tokens(history_BL), noise.normal(dim)
        for t in reversed(range(stop, self.config.num_steps)):
            noisy_BD = x_BD + self.net.time_embedding(torch.full((len(history_BL),), t))
            normal_BLD = noise.normal_per_position(history_BL.shape[1], dim, full=full)
            clean_BD = self.predict(token_BLD, history_BL, normal_BLD, noisy_BD)
            x_BD = posterior.from_x0[t] * clean_BD + posterior.from_xt[t] * x_BD
            if t > 0:
                x_BD = x_BD + float(np.sqrt(variance_T[t])) * noise.normal(dim)
        return x_BD


class AlignDiffWay(ReferenceWay):
    """Of the variant `paper`. Its h is made once per chain, although nothing says that the authors' code does so."""

    learner: AlignDiffLearner

    def __init__(self, learner: AlignDiffLearner) -> None:
        super().__init__(learner)
        assert self.config.guidance == "orthogonal" and self.config.alignment == "score_matching"
        assert self.config.energy == "mlp" and not self.config.reads_padding

    def draw(self, size: int) -> Any:
        return self.learner.draw(size)

    def tokens(self, embedded_BLD: Tensor) -> Tensor:
        return layer_norm(drop(embedded_BLD, self.net.item_dropout), self.net.item_norm)

    def guide(self, embedded_BLD: Tensor, history_BL: Tensor) -> Tensor:
        """h of eqs 1 to 4, made at every position and read at the last.  [B, D]"""
        part, heads = self.net.guidance, self.config.guidance_heads
        x_BLD = drop(embedded_BLD + part.positions, part.embedding_dropout)
        q, k = part.query(x_BLD) @ part.query_basis(), part.key(x_BLD) @ part.key_basis()
        logits_BHLL = split_heads(q, heads) @ split_heads(k, heads).transpose(-1, -2)
        causal_LL = torch.ones(len(part.positions), len(part.positions), dtype=torch.bool).tril()
        mask = causal_LL & (history_BL > 0)[:, None, None, :]
        logits_BHLL = (logits_BHLL / math.sqrt(q.shape[-1] / heads)).masked_fill(~mask, -1e9)
        y_BLD = drop(logits_BHLL.softmax(-1), part.dropout).sum(1) @ part.value(x_BLD) + x_BLD
        wide_BLD = drop(part.outer(F.relu(part.inner(y_BLD))), part.dropout)
        return layer_norm(y_BLD + wide_BLD, part.norm)[:, -1]

    def predict(self, z_BLD: Tensor, history_BL: Tensor, normal_BLD: Tensor, noisy_BD: Tensor) -> Tensor:
        lambda_BLD = self.config.lambda_mean + self.config.lambda_std * normal_BLD
        part = self.net.denoiser
        x_BLD = transformer(part.blocks, z_BLD + lambda_BLD * noisy_BD[:, None], history_BL, self.config.mask)
        return layer_norm(drop(x_BLD, part.dropout), part.norm)[:, -1]

    def loss(self, batch: PrefixBatch, noise: Any) -> Tensor:
        net, history_BL = self.net, batch.history_BL
        target_BD, embedded_BLD = net.items(batch.target_B), net.items(history_BL)
        x_t_BD = net.target_process.diffuse(net.begin(target_BD, noise.start_BD), noise.step_B, noise.target_BD)
        h_BD = torch.where(noise.null_B[:, None], net.null, self.guide(embedded_BLD, history_BL))
        z_BLD = (1 + h_BD)[:, None] * self.tokens(embedded_BLD)
        normal_BLD = self.lambda_for(history_BL, noise)
        x_BD = self.predict(z_BLD, history_BL, normal_BLD, net.noisy(x_t_BD, noise.step_B))
        loss = cross_entropy(x_BD, net.items.weight, batch.target_B, padding=self.config.padding_class)
        return loss + self.learner.eta * self.alignment(x_BD, target_BD, noise)

    def alignment(self, x_BD: Tensor, target_BD: Tensor, noise: Any) -> Tensor:
        """Eq 13."""
        process = self.net.energy_process
        y_BD = process.diffuse(target_BD, noise.step_B, noise.energy_BD)
        scores = [score(self.net.energy, value_BD, create_graph=True) for value_BD in (x_BD, y_BD)]
        sigma2_B = process.noise_std[noise.step_B].square()
        return losses.score_matching(*scores, sigma2_B, floor=self.config.sigma2_floor).mean()

    @torch.no_grad()
    def generate(self, history_BL: Tensor, noise: UserNoise, *, full: bool = True, stop: int = 0) -> Tensor:
        net, config, posterior = self.net, self.config, self.net.target_process.posterior
        embedded_BLD, weight = net.items(history_BL), config.guidance_weight
        token_BLD = self.tokens(embedded_BLD)
        branches = [(1 + self.guide(embedded_BLD, history_BL))[:, None] * token_BLD, (1 + net.null) * token_BLD]
        std_T, x_BD = noise_std(net), noise.normal(config.embedding_dim)
        for step in reversed(range(stop, config.num_steps)):
            noisy_BD = net.noisy(x_BD, torch.full((len(history_BL),), step))
            normal_BLD = noise.normal_per_position(history_BL.shape[1], config.embedding_dim, full=full)
            guided, free = (self.predict(z_BLD, history_BL, normal_BLD, noisy_BD) for z_BLD in branches)
            x_0_BD = (1 + weight) * guided - weight * free
            x_0_BD = x_0_BD + correction(net, x_0_BD, None)
            x_BD = float(posterior.from_x0[step]) * x_0_BD + float(posterior.from_xt[step]) * x_BD
            if step > 0:
                x_BD = x_BD + float(std_T[step]) * noise.normal(config.embedding_dim)
        return x_BD


def reference_way(learner: Learner) -> ReferenceWay:
    """The reference's way of training and applying the weights of `learner`."""
    if isinstance(learner, DiffuRec):
        return DiffuRecWay(learner)
    if isinstance(learner, AlignDiffLearner):
        return AlignDiffWay(learner)
    raise ValueError(f"no reference's way of {type(learner).__name__}; there are DiffuRec and AlignDiff")
