"""DiffuRec: the target's embedding is noised, mixed faintly into the history, and read off by a Transformer.

Li, Sun and Li, "DiffuRec: A Diffusion Model for Sequential Recommendation", ACM TOIS 42(3), 2024, arXiv 2304.00686.
Reference: WHUIR/DiffuRec f6f70c9 (MIT).

Deviations, each an option or pinned by a test:
- `mask: released` keeps the reference's mask, which blanks padded query rows and never hides padded keys; padded
  positions then act as registers that real positions read. `keys` hides padded keys, the usual reading.
- The padding id is a class of the training softmax as released (`padding_class`), but never a candidate here.
- Timesteps are uniform: the reference's loss-aware sampler is never updated, so its draws are uniform too.
- `diffusion: false` is our control: the same Transformer, one forward pass, no noise, no chain.
- Epochs are validated as config/methods/diffurec.yaml says; the reference keeps the last epoch at which any of six
  metrics rose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness.compute import Compute
from harness.gaussian import GaussianProcess, truncated_linear
from harness.layers import Dropout, PaddingMask, PreNormBlock, last_hidden, sinusoidal
from harness.learner import SingleLossLearner
from harness.losses import softmax_cross_entropy
from harness.packing import Packing
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import PrefixBatch, PrefixSampler, ResidentSequences, pad_left

# Released: a padded query row attends uniformly to all positions, padding included.
PADDING: Final[dict[str, PaddingMask]] = {"released": "queries", "keys": "keys"}


@dataclass(frozen=True)
class Config:
    """Defaults are the reference's options (main.py) unless a comment says otherwise."""

    embedding_dim: int = 128
    num_blocks: int = 4
    num_heads: int = 4  # fixed in model.py
    max_len: int = 50
    dropout: float = 0.1
    embedding_dropout: float = 0.3
    embedding_std: float = 1.0  # of the item vectors at the start; ours as an option, 1 is torch's and the reference's
    num_steps: int = 32
    delta: float = 0.001  # mean AND standard deviation of lambda, as the reference draws it
    diffusion: bool = True  # ours: false = one forward pass without noise, the control experiment
    mask: Literal["released", "keys"] = "released"
    variance: Literal["beta", "posterior"] = "beta"  # of the reverse step; the paper states the posterior's
    padding_class: bool = True  # padding takes part in the training softmax
    batch_size: int = 512
    learning_rate: float = 1e-3
    decay_every: int = 100  # epochs between multiplications of the learning rate by decay
    decay: float = 0.1
    # Ours: groups of like length that a batch is encoded in where padding is hidden; null: tiles on a CPU, one group
    # on a GPU. Dropout draws differ.
    length_slices: int | None = None

    def __post_init__(self) -> None:
        positive = ("embedding_dim", "num_blocks", "num_heads", "max_len", "num_steps", "batch_size", "decay_every")
        for name in positive:
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        slices = self.length_slices
        require(slices is None or slices >= 1, "length_slices", slices, "null or 1 or more")
        require(self.embedding_dim % self.num_heads == 0, "num_heads", self.num_heads, "divisors of embedding_dim")
        for name in ("dropout", "embedding_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to but not including 1")
        require(self.embedding_dim % 2 == 0, "embedding_dim", self.embedding_dim, "even numbers (cosines and sines)")
        for name in ("embedding_std", "delta", "learning_rate", "decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        GaussianProcess(truncated_linear(self.num_steps))  # refuses a T after which no signal is left


class Network(nn.Module):
    """f(history, x_t, t) -> x_0, read at the last position."""

    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.config = config
        self.items = nn.Embedding(num_items + 1, dim)  # row 0 is an ordinary row, as in the reference
        with torch.no_grad():
            self.items.weight.mul_(config.embedding_std)
        self.norm_items = nn.LayerNorm(dim, eps=1e-12)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.time = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
        self.blocks = nn.ModuleList(
            PreNormBlock(dim, config.num_heads, config.dropout, eps=1e-12) for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = Dropout(config.dropout)
        for block in self.blocks:
            for layer in (block.attention.output, block.feed_forward.inner, block.feed_forward.outer):
                nn.init.xavier_normal_(layer.weight)

    def tokens(self, item_N: Tensor) -> Tensor:
        """What does not depend on t: item vectors after dropout and LayerNorm (in this order).  [N] -> [N, D]"""
        return self.norm_items(self.embedding_dropout(self.items(item_N)))

    def time_embedding(self, t_B: Tensor) -> Tensor:
        """[B] steps 0..T-1, rescaled to 0..1000 before the sinusoid -> [B, D]"""
        return self.time(sinusoidal(t_B * (1000 / self.config.num_steps), self.config.embedding_dim))

    def forward(self, token_ND: Tensor, packing: Packing, mixed_ND: Tensor | None) -> Tensor:
        """Clean target from tokens plus what the noisy target adds to each.  -> [B, D]"""
        x_ND = token_ND if mixed_ND is None else token_ND + mixed_ND
        return self.norm(self.dropout(last_hidden(self.blocks, x_ND, packing, PADDING[self.config.mask])))


class DiffuRec(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
        )
        self.config, self.streams = config, streams
        self.process = GaussianProcess(truncated_linear(config.num_steps)).to(compute.device)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, config.decay_every, config.decay)
        trim = config.mask == "keys"  # released: padding is part of the computation
        self.slices = (config.length_slices or (1 if compute.is_cuda else None)) if trim else 1
        self.sampler = PrefixSampler(
            ResidentSequences.of(view.train, compute.device),
            max_len=config.max_len,
            batch_size=config.batch_size,
            trim=trim,
        )

    def batches(self) -> Iterator[PrefixBatch]:
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def loss(self, batch: PrefixBatch) -> dict[str, Tensor]:
        """Cross-entropy of the predicted x_0 against all items; nothing else."""
        packing = batch.packed(self.slices)
        mixed_ND = None
        if self.config.diffusion:
            mixed_ND = self._lambda(packing) * packing.spread(self._noisy_target(batch.target_B))
        query_BD = self.module(self.module.tokens(packing.item_N), packing, mixed_ND)
        table = self.module.items.weight
        return {"loss": softmax_cross_entropy(query_BD, table, batch.target_B, padding=self.config.padding_class)}

    def _noisy_target(self, target_B: Tensor) -> Tensor:
        """x_t plus the time embedding, for steps drawn uniformly.  [B, D]"""
        generator = self.streams.torch("diffusion", self.compute.device)
        target_BD = self.module.items(target_B)
        t_B = torch.randint(self.config.num_steps, target_B.shape, generator=generator, device=generator.device)
        noise_BD = torch.randn(target_BD.shape, generator=generator, device=generator.device)
        return self.process.diffuse(target_BD, t_B, noise_BD) + self.module.time_embedding(t_B)

    def _lambda(self, packing: Packing) -> Tensor:
        """lambda ~ N(delta, delta) per token and feature; the second delta is a standard deviation.  [N, D]"""
        generator = self.streams.torch("lambda", self.compute.device)
        shape = (len(packing.item_N), self.config.embedding_dim)
        draw = torch.randn(shape, generator=generator, device=generator.device)
        return draw.mul_(self.config.delta).add_(self.config.delta)

    def end_epoch(self, metrics: Mapping[str, float] | None) -> None:
        self.schedule.step()

    def represent(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        """The generated x_0 of each user, before it is compared with items.  [B, D]"""
        if self.config.mask == "released":
            history_BL = pad_left(history_BL, self.max_len)
        parts = noise.parts(history_BL, trim=self.config.mask == "keys")
        with self.compute.autocast():
            return torch.cat([self._generate(packing, own) for _, packing, own in parts])

    def _generate(self, packing: Packing, noise: UserNoise) -> Tensor:
        token_ND = self.module.tokens(packing.item_N)
        if not self.config.diffusion:
            return self.module(token_ND, packing, None).float()
        return self._reverse(token_ND, packing, noise)

    def _reverse(self, token_ND: Tensor, packing: Packing, noise: UserNoise) -> Tensor:
        """The chain from pure noise: x_{T-1} to x_0 in T predictions.  [B, D]"""
        dim, delta = self.config.embedding_dim, self.config.delta
        x_BD = noise.normal(dim)
        step_std = self.process.beta_T if self.config.variance == "beta" else self.process.posterior.variance
        for t in reversed(range(self.config.num_steps)):
            time_D = self.module.time_embedding(torch.full((1,), t, device=x_BD.device))
            lambda_ND = (
                noise.normal_per_token(packing, dim, full=self.config.mask == "released").mul_(delta).add_(delta)
            )
            clean_BD = self.module(token_ND, packing, lambda_ND.mul_(packing.spread(x_BD + time_D))).float()
            x_BD = self.process.posterior.from_x0[t] * clean_BD + self.process.posterior.from_xt[t] * x_BD
            if t > 0:
                x_BD = x_BD + float(np.sqrt(step_std[t])) * noise.normal(dim)
        return x_BD

    def item_table(self) -> Tensor:
        return self.module.items.weight

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        return self.represent(history_BL, user_B, noise) @ self.item_table().T

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.schedule.load_state_dict(state["schedule"])


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> DiffuRec:
    config = from_mapping(Config, settings, where="diffurec")
    streams.seed_global("init")
    return DiffuRec(config, view, streams, compute)
