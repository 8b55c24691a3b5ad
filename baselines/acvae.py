"""ACVAE: a GRU with causal convolutions fed by noise, trained against a KL critic and a contrastive critic.

Xie et al., "Adversarial and Contrastive Variational Autoencoder for Sequential Recommendation", WWW 2021,
arXiv 2103.10693. Reference: ACVAE/ACVAE-PyTorch 9a1dac6 (no licence), configuration "fc_cnn" with noise.

There is no head for mean and variance: z itself is the sample of an implicit posterior. The KL critic T learns
log q(z|e) - log p(z), so its mean estimates the divergence; the contrast critic C tells a user's z from another's.

Deviations, each an option or pinned by a test:
- Trained on the training part and selected on the validation item; the reference splits each sequence 4:1, and its
  "validation" users are the test users.
- log(sigmoid(x) + 1e-9) is written as logsigmoid(x), which does not saturate.
- A batch of a single user leaves the contrastive term out, as it would compare z with itself.
- The generator's two linear layers that the reference never uses are left out.
- Noise is drawn at test time as in the reference, for the positions that reach the last output only.
- `kl_weight: 0` or `contrast_weight: 0` skip that term and its critic; the contrast's optimiser, which also holds the
  encoder, then still applies its weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.compute import Compute
from harness.layers import Dropout
from harness.losses import binary_cross_entropy, cross_entropy_with_bias
from harness.recurrence import recur, unroll
from harness.settings import from_mapping, require
from harness.split import TrainingView
from harness.streams import Streams, UserNoise
from harness.windows import ResidentSequences, SequenceBatch, SequenceSampler, align_left, length_slices

WIDTH = 5  # of the causal convolution


@dataclass(frozen=True)
class Config:
    """Defaults are train.py's unless a comment says otherwise."""

    embedding_dim: int = 128
    hidden_dim: int = 100  # of GRU and convolutions
    latent_dim: int = 64
    critic_dim: int = 128  # model.py
    max_len: int = 50  # ours, as for all methods; 200 for ML-1M
    dropout: float = 0.5  # model.py, on item vectors and before the latent layer
    critic_dropout: float = 0.2  # model.py
    kl_weight: float = 0.05  # alpha
    contrast_weight: float = 0.1  # beta
    batch_size: int = 64
    learning_rate: float = 1e-3  # AdamW on the generator
    weight_decay: float = 1e-2
    contrast_learning_rate: float = 3e-4  # plain SGD on the contrast critic and, again, on the encoder
    critic_learning_rate: float = 5e-4  # plain SGD on the KL critic
    critic_weight_decay: float = 0.1  # of both SGD optimisers
    length_slices: int = 4  # ours: groups of like length that a batch is encoded in, on a CPU; dropout draws differ

    def __post_init__(self) -> None:
        sizes = ("embedding_dim", "hidden_dim", "latent_dim", "critic_dim", "max_len", "batch_size")
        for name in (*sizes, "length_slices"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("dropout", "critic_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 up to but not including 1")
        rates = ("learning_rate", "contrast_learning_rate", "critic_learning_rate")
        for name in (*rates, "kl_weight", "contrast_weight", "weight_decay", "critic_weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


NoiseFn = Callable[[Tensor], Tensor]  # standard normal values of the shape of its argument


class Encoder(nn.Module):
    """GRU states to latents: two blocks of noise, three convolutions, a residual."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.noise = nn.Linear(dim, dim)  # one layer, used twice
        self.first, self.last = nn.Linear(dim, dim), nn.Linear(2 * dim, dim)  # convolutions of width 1
        self.wide = nn.Conv1d(dim, 2 * dim, WIDTH)
        self.latent = nn.Linear(dim, config.latent_dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, state_BLD: Tensor, noise: NoiseFn, real_BL: Tensor | None = None) -> Tensor:
        """One latent per position that has WIDTH - 1 others before it.  [B, L, hidden] -> [B, L - WIDTH + 1, latent]

        real_BL: False where a position stands before a sequence's start; the wide convolution reads zeros there.
        """
        x = F.softplus(self.first(self._noisy(state_BLD, noise)))
        x = self._noisy(x, noise)
        if real_BL is not None:
            x = x * real_BL[..., None]
        x = F.softplus(self.wide(x.transpose(1, 2))).transpose(1, 2)
        x = F.softplus(self.last(x))
        return self.latent(self.dropout(state_BLD[:, WIDTH - 1 :] + x))

    def _noisy(self, x: Tensor, noise: NoiseFn) -> Tensor:
        return x + torch.tanh(self.noise(noise(x)))


class Generator(nn.Module):
    """Item vectors, encoder and decoder; row 0, padding, is an ordinary row of the table and class of the output."""

    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items + 1, config.embedding_dim)  # N(0, 1)
        self.gru = nn.GRU(config.embedding_dim, config.hidden_dim, batch_first=True)
        self.encoder = Encoder(config)
        self.decode = nn.Linear(config.latent_dim, config.embedding_dim)
        self.output = nn.Linear(config.embedding_dim, num_items + 1)
        self.dropout = Dropout(config.dropout)
        for layer in (self.decode, self.output):
            nn.init.xavier_normal_(layer.weight)

    def forward(
        self, history_BL: Tensor, noise: NoiseFn, read_B: Tensor | None = None, slices: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Item vectors and latents of histories aligned left.  [B, L] -> [B, L, embedding], [B, L, latent]

        read_B: how many latents of each row will be read; all by default. The encoder then looks at `slices` groups of
        rows that are read alike, each cut to what is read of it.
        """
        num_rows, length = history_BL.shape
        if read_B is None:
            read_B = torch.full((num_rows,), length, device=history_BL.device)
        item_BLD = self.items(history_BL)
        state_BLD = unroll(self.gru, self.dropout(item_BLD), read_B)
        if slices == 1:
            return item_BLD, self._encode(state_BLD, noise)
        sorted_B, order_B = read_B.sort(stable=True)
        groups = length_slices(sorted_B, slices)
        latents = [self._encode(state_BLD[order_B[rows], :width], noise) for rows, width in groups]
        z_BLD = torch.cat([F.pad(z_RWD, (0, 0, 0, length - z_RWD.shape[1])) for z_RWD in latents])
        return item_BLD, z_BLD[order_B.argsort()]

    def _encode(self, state_BLD: Tensor, noise: NoiseFn) -> Tensor:
        state_BLD = F.pad(state_BLD, (0, 0, WIDTH - 1, 0))
        real_BL = torch.arange(state_BLD.shape[1], device=state_BLD.device) >= WIDTH - 1
        return self.encoder(state_BLD, noise, real_BL[None])

    def features(self, z: Tensor) -> Tensor:
        """What the output layer reads.  [..., latent] -> [..., embedding]"""
        return torch.tanh(self.decode(z))


class KLCritic(nn.Module):
    """T(e, z), one value per latent dimension; half of z^2 is given, as it is the known part of -log p(z)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.critic_dim
        self.enter = nn.Linear(config.embedding_dim + config.latent_dim, dim)
        self.pairs = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim), nn.Linear(dim, dim)) for _ in range(2))
        self.leave = nn.Linear(dim, config.latent_dim)
        self.dropout = Dropout(config.critic_dropout)

    def forward(self, item: Tensor, z: Tensor) -> Tensor:
        x = self.dropout(self.enter(torch.cat([item, z], dim=-1)))
        for pair in self.pairs:
            x = F.elu(x + pair(x))
        return self.dropout(self.leave(x)).float() + 0.5 * z.float().square()


class ContrastCritic(nn.Module):
    """C(e, z), one value per position, from everything up to it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gru = nn.GRU(config.embedding_dim + config.latent_dim, config.critic_dim, batch_first=True)
        self.leave = nn.Linear(config.critic_dim, 1)

    def forward(self, item_BLD: Tensor, z_BLD: Tensor, length_B: Tensor) -> Tensor:
        """Values at the first `length_B` positions of each row.  [B, L, embedding], [B, L, latent], [B] -> [B, L]"""
        hidden_BLD = unroll(self.gru, torch.cat([item_BLD, z_BLD.to(item_BLD.dtype)], dim=-1), length_B)
        return self.leave(F.gelu(hidden_BLD)).squeeze(-1).float()


class ACVAE:
    """A learner of its own: two networks updated in turn by three optimisers."""

    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        self.config, self.streams, self.compute, self.max_len = config, streams, compute, config.max_len
        self.generator = Generator(config, view.num_items)
        self.critic, self.contrast = KLCritic(config), ContrastCritic(config)
        parts = {"generator": self.generator, "critic": self.critic, "contrast": self.contrast}
        self.module = nn.ModuleDict(parts).to(compute.device)
        twice_trained = [*self.generator.encoder.parameters(), *self.contrast.parameters()]
        self.optimizers = {
            "generator": torch.optim.AdamW(
                self.generator.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
            ),
            "contrast": torch.optim.SGD(
                twice_trained, lr=config.contrast_learning_rate, weight_decay=config.critic_weight_decay
            ),
            "critic": torch.optim.SGD(
                self.critic.parameters(), lr=config.critic_learning_rate, weight_decay=config.critic_weight_decay
            ),
        }
        data = ResidentSequences.of(view.train, compute.device)
        self.sampler = SequenceSampler(data, max_len=config.max_len, batch_size=config.batch_size, pieces="last")
        self.slices = 1 if compute.is_cuda else config.length_slices

    def batches(self) -> Iterator[SequenceBatch]:
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def _draw(self, x: Tensor) -> Tensor:
        generator = self.streams.torch("noise", self.compute.device)
        return torch.randn(x.shape, generator=generator, device=generator.device)

    def training_step(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Update generator and contrast critic from one loss, then the KL critic on the same latents."""
        history_BL, length_B = align_left(batch.input_BL)
        target_BL, _ = align_left(batch.target_BL)
        real_BL = torch.arange(history_BL.shape[1], device=length_B.device) < length_B[:, None]
        self.module.zero_grad(set_to_none=True)
        with self.compute.autocast():
            other_B = self._others(len(history_BL)).to(length_B.device)
            read_B = self._positions_read(length_B, other_B)
            item_BLD, z_BLD = self.generator(history_BL, self._draw, read_B, self.slices)
            terms = self.generator_terms(item_BLD, z_BLD, target_BL, real_BL, other_B)
        terms["loss"].backward()
        self.optimizers["generator"].step()
        self.optimizers["contrast"].step()
        if self.config.kl_weight > 0:
            terms["critic"] = self._update_critic(item_BLD.detach()[real_BL], z_BLD.detach()[real_BL], len(history_BL))
        return {name: value.detach() for name, value in terms.items()}

    def _positions_read(self, length_B: Tensor, other_B: Tensor) -> Tensor:
        """How many latents of each user a loss term reads: the user's own, and as many as the user beside it has."""
        if self.config.contrast_weight == 0:
            return length_B
        return torch.maximum(length_B, torch.empty_like(length_B).scatter_(0, other_B, length_B))

    def generator_terms(
        self, item_BLD: Tensor, z_BLD: Tensor, target_BL: Tensor, real_BL: Tensor, other_B: Tensor
    ) -> dict[str, Tensor]:
        """Reconstruction, weighted KL and weighted contrast, each summed over positions and divided by users."""
        num_users = len(target_BL)
        target_N, z_ND = target_BL[real_BL], z_BLD[real_BL]
        features_ND, output = self.generator.features(z_ND), self.generator.output
        mean = cross_entropy_with_bias(features_ND, output.weight, output.bias, target_N, padding=True)
        terms = {"reconstruction": mean * (len(target_N) / num_users)}
        if self.config.kl_weight > 0:
            kl_N = self.critic(item_BLD[real_BL], z_ND).mean(-1)
            terms["kl"] = self.config.kl_weight * kl_N.sum() / num_users
        if self.config.contrast_weight > 0 and num_users > 1:
            length_B = real_BL.sum(1)
            own, other = (self.contrast(item_BLD, z, length_B) for z in (z_BLD, z_BLD[other_B]))
            contrast = binary_cross_entropy(own, other)[real_BL].sum() / num_users
            terms["contrast"] = self.config.contrast_weight * contrast
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _others(self, num_users: int) -> Tensor:
        """For each user another one, the next on a random circle; the batch itself is sorted by length.  [B]

        Neighbours there are of one length, whereas the reference's pairs set latents of items beside those of padding.
        """
        circle = torch.randperm(num_users, generator=self.streams.torch("pairs"))
        return torch.empty_like(circle).scatter_(0, circle, circle.roll(-1))

    def _update_critic(self, item_ND: Tensor, z_ND: Tensor, num_users: int) -> Tensor:
        self.critic.zero_grad(set_to_none=True)  # the generator's step filled them
        with self.compute.autocast():
            values = self.critic(item_ND, z_ND), self.critic(item_ND, self._draw(z_ND))
            loss = binary_cross_entropy(*values).mean(-1).sum() / num_users  # least where T = log q - log p
        loss.backward()
        self.optimizers["critic"].step()
        return loss

    def end_epoch(self, metrics: Mapping[str, float] | None) -> None:
        """Nothing: no schedule."""

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        aligned_BL, length_B = align_left(history_BL)
        with self.compute.autocast():
            state_BLD = recur(self.generator.gru, self.generator.items(aligned_BL))[0]
            # The last output reads the last WIDTH states.
            index_BW = length_B[:, None] + torch.arange(-WIDTH, 0, device=length_B.device)
            real_BW = index_BW >= 0
            index_BW = index_BW.clamp(min=0)[..., None].expand(-1, -1, state_BLD.shape[-1])
            z_BLD = self.generator.encoder(
                state_BLD.gather(1, index_BW), lambda x: noise.normal_per_position(x.shape[1], x.shape[2]), real_BW
            )
        return self.generator.output(self.generator.features(z_BLD[:, -1].float()))

    def state_dict(self) -> dict[str, Any]:
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"module": self.module.state_dict(), **optimizers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])


def build(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> ACVAE:
    config = from_mapping(Config, settings, where="acvae")
    streams.seed_global("init")
    return ACVAE(config, view, streams, compute)
