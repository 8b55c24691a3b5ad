"""SVAE: a GRU reads each prefix, a Gaussian latent is drawn per position, a decoder predicts the next k items.

Sachdeva, Manco, Ritacco and Pudi, "Sequential Variational Autoencoders for Collaborative Filtering", WSDM 2019,
arXiv 1811.09975. Reference: noveens/svae_cf 995c293 (Apache-2.0), one notebook.

Deviations, each an option or pinned by a test:
- The reference samples with exp(s) as standard deviation, but its KL treats s as the logarithm of a variance.
  `kl: exact` is the divergence of what is sampled (default), `released` the notebook's expression.
- The reference restarts the KL anneal in every epoch, so its cap is never reached: the largest weight is the number
  of users over 200,000, 0.11 on Beauty. `anneal: run` keeps rising (default) and is at the cap of 0.2 from the 40,000th
  user on, less than two epochs of Beauty; `epoch` restarts.
- Batches of several users: the reconstruction is summed over a user's positions, the KL averaged over them, and only
  then both are averaged over users, which for one user is the reference's loss.
- At test time the whole history is read; the notebook never feeds the last known item.
- Histories are cut into pieces of `max_len` items; targets do not reach from one piece into the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute import Compute
from harness.layers import Dropout
from harness.learner import SingleLossLearner
from harness.losses import cross_entropy_with_bias
from harness.recurrence import unroll
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, SequenceBatch, SequenceSampler, align_left


@dataclass(frozen=True)
class Config:
    """Defaults are the notebook's unless a comment says otherwise."""

    embedding_dim: int = 256
    hidden_dim: int = 200  # of the GRU
    inner_dim: int = 150  # of encoder and decoder
    latent_dim: int = 64
    num_targets: int = 4  # next items to predict at each position
    max_len: int = 50  # ours: the notebook reads whole histories, 200 for ML-1M
    dropout: float = 0.0  # ours (tuned): on item vectors; the notebook has none
    kl: Literal["exact", "released"] = "exact"
    kl_cap: float = 0.2  # largest weight of the KL
    anneal: Literal["run", "epoch"] = "run"
    anneal_users: int = 200_000  # the weight grows by 1 over so many users; each piece of one counts
    latent_at_test: Literal["sample", "mean"] = "sample"  # the notebook samples when it predicts, too
    batch_size: int = 32  # ours: the notebook's dense targets force 1
    learning_rate: float = 1e-3  # Adam's own default; the notebook's 0.01 belongs to Adagrad
    weight_decay: float = 5e-3  # L2 inside Adam, on all weights

    def __post_init__(self) -> None:
        sizes = ("embedding_dim", "hidden_dim", "inner_dim", "latent_dim", "num_targets", "max_len", "batch_size")
        for name in (*sizes, "anneal_users"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 up to but not including 1")
        for name in ("kl_cap", "learning_rate", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


def kl_to_standard_normal(mean: Tensor, scale: Tensor, *, form: str) -> Tensor:
    """KL divergence summed over the last dimension, for z = mean + exp(scale) noise.

    form "exact": of N(mean, exp(scale)^2); "released": the notebook's, which reads scale as log-variance.
    """
    if form == "exact":
        return 0.5 * (-2 * scale + torch.exp(2 * scale) + mean**2 - 1).sum(-1)
    if form == "released":
        return 0.5 * (-scale + torch.exp(scale) + mean**2 - 1).sum(-1)
    raise ValueError(f"kl: {form!r} is not one of 'exact', 'released'")


def draw_latent(mean: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """z with standard deviation exp(scale)."""
    return mean + scale.exp() * noise


def next_items(batch: SequenceBatch, count: int) -> tuple[Tensor, Tensor]:
    """Inputs aligned left, and up to `count` items that follow each of them.  -> [B, L], [B, L, count]

    0 stands for "none": after the end of a sequence, and on padding.
    """
    items_BL, length_B = align_left(torch.cat([batch.input_BL, batch.target_BL[:, -1:]], dim=1))
    target_BLK = F.pad(items_BL[:, 1:], (0, count - 1)).unfold(1, count, 1)
    real_BL = torch.arange(target_BLK.shape[1], device=items_BL.device) < length_B[:, None] - 1
    return items_BL[:, :-1] * real_BL, target_BLK * real_BL[..., None]


class Network(nn.Module):
    """Encoder of prefixes and decoder of latents; item i is row i - 1, padding has none."""

    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items, config.embedding_dim)  # N(0, 1)
        self.gru = nn.GRU(config.embedding_dim, config.hidden_dim, batch_first=True)
        self.encode = nn.Linear(config.hidden_dim, config.inner_dim)
        self.latent = nn.Linear(config.inner_dim, 2 * config.latent_dim)
        self.decode = nn.Linear(config.latent_dim, config.inner_dim)
        self.output = nn.Linear(config.inner_dim, num_items)
        self.dropout = Dropout(config.dropout)
        for layer in (self.encode, self.latent, self.decode, self.output):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, history_BL: Tensor) -> Tensor:
        """GRU states of histories aligned left; what follows a history's end is not to be read.  -> [B, L, hidden]"""
        length_B = (history_BL > 0).sum(1)
        return unroll(self.gru, self.dropout(self.items((history_BL - 1).clamp(min=0))), length_B)

    def posterior(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of z, in fp32.  [..., hidden] -> two of [..., latent]"""
        mean, scale = self.latent(torch.tanh(self.encode(state))).float().chunk(2, dim=-1)
        return mean, scale

    def features(self, z: Tensor) -> Tensor:
        """What the output layer reads.  [..., latent] -> [..., inner]"""
        return torch.tanh(self.decode(z))

    def logits(self, z: Tensor) -> Tensor:
        """[..., latent] -> fp32 [..., num_items]"""
        return self.output(self.features(z)).float()


class SVAE(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            Network(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.config, self.streams = config, streams
        self.users_seen = 0  # by the anneal
        data = ResidentSequences.of(view.train, compute.device)
        self.sampler = SequenceSampler(data, max_len=config.max_len, batch_size=config.batch_size)

    def batches(self) -> Iterator[SequenceBatch]:
        if self.config.anneal == "epoch":
            self.users_seen = 0
        return self.sampler.epoch(self.streams.torch("shuffle"))

    @property
    def kl_weight(self) -> float:
        return min(self.config.kl_cap, self.users_seen / self.config.anneal_users)

    def loss(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Mean over users of reconstruction plus weighted KL; a history longer than max_len counts once per piece."""
        history_BL, target_BLK = next_items(batch, self.config.num_targets)
        real_BL = history_BL > 0
        row_N = real_BL.nonzero()[:, 0]
        num_users = len(history_BL)
        mean_ND, scale_ND = self.module.posterior(self.module(history_BL)[real_BL])
        generator = self.streams.torch("latent", self.compute.device)
        noise_ND = torch.randn(mean_ND.shape, generator=generator, device=generator.device)
        z_ND = draw_latent(mean_ND, scale_ND, noise_ND)
        if self.config.num_targets == 1:  # all positions weigh the same, and the scores need not exist as a whole
            target_N, features_ND = target_BLK[real_BL][:, 0] - 1, self.module.features(z_ND)
            output = self.module.output
            mean = cross_entropy_with_bias(features_ND, output.weight, output.bias, target_N, padding=True)
            reconstruction = mean * (len(target_N) / num_users)
        else:
            summed_N = _sum_of_cross_entropies(self.module.logits(z_ND), target_BLK[real_BL])
            first_B = (target_BLK[:, 0] > 0).sum(-1)  # the notebook divides by the targets of the first position
            reconstruction = (summed_N / first_B[row_N]).sum() / num_users
        kl_N = kl_to_standard_normal(mean_ND, scale_ND, form=self.config.kl)
        kl = (kl_N / real_BL.sum(1)[row_N]).sum() / num_users
        loss = reconstruction + self.kl_weight * kl
        self.users_seen += num_users
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        aligned_BL, length_B = align_left(history_BL)
        with self.compute.autocast():
            state_BD = self.module(aligned_BL)[torch.arange(len(aligned_BL), device=aligned_BL.device), length_B - 1]
            mean_BD, scale_BD = self.module.posterior(state_BD)
        z_BD = mean_BD
        if self.config.latent_at_test == "sample":
            z_BD = draw_latent(mean_BD, scale_BD, noise.normal(self.config.latent_dim))
        return F.pad(self.module.logits(z_BD), (1, 0), value=-torch.inf)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "users_seen": self.users_seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.users_seen = state["users_seen"]


def _sum_of_cross_entropies(logits_NI: Tensor, target_NK: Tensor) -> Tensor:
    """-log softmax summed over each row's targets, 0 meaning none; column i holds item i + 1.  -> [N]"""
    present_NK = target_NK > 0
    picked_NK = logits_NI.gather(1, (target_NK - 1).clamp(min=0)) * present_NK
    return present_NK.sum(1) * logits_NI.logsumexp(1) - picked_NK.sum(1)


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> SVAE:
    config = from_mapping(Config, settings, where="svae")
    streams.seed_global("init")
    return SVAE(config, view, streams, compute)
