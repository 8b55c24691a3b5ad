"""Training and scoring: eq 14 on every prefix of the training part, the chain of eq 11 for every user ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from aligndiff import losses, sampler
from aligndiff.config import Config
from aligndiff.energy import score
from aligndiff.network import AlignDiff
from aligndiff.probe import correction_terms, inspect
from harness.compute import Compute
from harness.learner import SingleLossLearner
from harness.losses import softmax_cross_entropy
from harness.packing import Packing
from harness.split import TrainingView
from harness.streams import Streams, UserNoise, derive_seed
from harness.windows import PrefixBatch, PrefixSampler, ResidentSequences, pad_left


@dataclass(frozen=True)
class TrainingNoise:
    """Everything random in one training step except dropout.

    step_B: t in 0..T-1; null_B: whose h becomes the null vector; start, target, energy [B, D]: eps of x_0, x_t, y_s;
    mix_B: places GAD-GP's interpolates; normal_for(packing): standard normal values behind lambda, [N, D]
    """

    step_B: Tensor
    null_B: Tensor
    start_BD: Tensor
    target_BD: Tensor
    energy_BD: Tensor
    mix_B: Tensor
    normal_for: Callable[[Packing], Tensor]


class AlignDiffLearner(SingleLossLearner):
    def __init__(self, config: Config, view: TrainingView, streams: Streams, compute: Compute) -> None:
        super().__init__(
            AlignDiff(config, view.num_items),
            max_len=config.max_len,
            compute=compute,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.config, self.streams = config, streams
        self.data = ResidentSequences.of(view.train, compute.device)
        self.sampler = PrefixSampler(
            self.data, max_len=config.max_len, batch_size=config.batch_size, trim=not config.reads_padding
        )
        self.num_slices = config.slices or (1 if compute.is_cuda else None)  # None: tiles
        if config.reads_padding:
            self.num_slices = 1  # all windows are max_len wide: nothing to trim
        self.eta, self.epoch, self.best = config.eta, 0, {}
        self.eta_changed, self.improved = 0, False  # epoch of eta's last change, and whether any metric rose since
        self.other_U = self._circle()

    # Training

    def batches(self) -> Iterator[PrefixBatch]:
        return self.sampler.epoch(self.streams.torch("shuffle"))

    def loss(self, batch: PrefixBatch) -> dict[str, Tensor]:
        return self.terms(batch, self.draw(len(batch.target_B)))

    def draw(self, size: int) -> TrainingNoise:
        device, dim = self.compute.device, self.config.embedding_dim
        generator = self.streams.torch("noise", device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        return TrainingNoise(
            step_B=torch.randint(self.config.num_steps, (size,), generator=generator, device=device),
            null_B=torch.rand(size, generator=generator, device=device) < self.config.null_probability,
            start_BD=normal(size, dim),
            target_BD=normal(size, dim),
            energy_BD=normal(size, dim),
            mix_B=torch.rand(size, generator=generator, device=device),
            normal_for=lambda packing: normal(len(packing.item_N), dim),
        )

    def terms(self, batch: PrefixBatch, noise: TrainingNoise) -> dict[str, Tensor]:
        """L = L_CE + eta L_align, eqs 12 to 14, with what the correction would do at this moment."""
        net, table = self.module, self.module.items.weight
        packing, target_BD = batch.packed(self.num_slices), net.items(batch.target_B)
        x_BD = self.predict(packing, target_BD, noise)
        cross_entropy = softmax_cross_entropy(x_BD, table, batch.target_B, padding=self.config.padding_class)
        if net.energy is None:
            return {"loss": cross_entropy, "cross_entropy": cross_entropy}
        alignment, extra, score_BD = self.align(packing, x_BD, target_BD, noise)
        loss = cross_entropy + self.eta * alignment
        loss = loss if extra is None else loss + extra
        terms = {"loss": loss, "cross_entropy": cross_entropy, "alignment": alignment}
        sign = -1.0 if self.config.correction_sign == "minus" else 1.0
        change_BD = sign * self.config.correction * score_BD
        applied = correction_terms(x_BD.detach(), change_BD, target_BD.detach())
        terms |= {name: value_B.mean() for name, value_B in applied.items()}
        return terms if extra is None else terms | {"critic": extra}

    def predict(self, packing: Packing, target_BD: Tensor, noise: TrainingNoise) -> Tensor:
        """x~_0 of each sample from its own x_t, eqs 5 to 7.  [B, D]"""
        net, config = self.module, self.config
        x_t_BD = net.target_process.diffuse(net.begin(target_BD, noise.start_BD), noise.step_B, noise.target_BD)
        embedded_ND = net.items(packing.item_N)
        with parametrize.cached():  # the orthogonal matrices are made once
            h_BD = net.guide(embedded_ND, packing)
        if h_BD is not None:
            h_BD = torch.where(noise.null_B[:, None], net.null, h_BD)
        z_ND = net.modulate(net.tokens(embedded_ND), h_BD, packing)
        if config.diffusion:
            lambda_ND = config.lambda_mean + config.lambda_std * noise.normal_for(packing)
            z_ND = z_ND + lambda_ND * packing.spread(net.noisy(x_t_BD, noise.step_B))
        return net.denoiser.finish(net.denoiser.hidden(z_ND, packing))

    def align(
        self, packing: Packing, x_BD: Tensor, target_BD: Tensor, noise: TrainingNoise
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The term weighted by eta, a critic's own loss if there is one, and S(x~_0) without its graph."""
        net, config = self.module, self.config
        y_BD = net.energy_process.diffuse(target_BD, noise.step_B, noise.energy_BD)
        sigma2_B = net.energy_process.noise_std[noise.step_B].square()
        memory = None
        if config.energy == "transformer":
            memory = net.energy.remember(net.tokens(net.items(packing.item_N).detach()), packing)
        if config.alignment == "score_matching":
            twice = None if memory is None else memory.repeat(2)
            both = score(net.energy, torch.cat([x_BD.float(), y_BD.float()]), twice, create_graph=True)
            score_x, score_y = both.chunk(2)
            value_B = losses.score_matching(score_x, score_y, sigma2_B, floor=config.sigma2_floor)
            return value_B.mean(), None, score_x.detach()
        if config.alignment == "released":
            score_x = score(net.energy, x_BD, memory, create_graph=True)
            return losses.released_score_matching(x_BD, score_x, y_BD, sigma2_B).mean(), None, score_x.detach()
        if config.alignment == "wgan_gp":
            critic_B, value_B = losses.wgan_gp(
                net.energy, x_BD, y_BD, memory, penalty=config.gradient_penalty, mix_B=noise.mix_B
            )
        elif config.alignment == "adversarial":
            critic_B, value_B = losses.adversarial(net.energy, x_BD, y_BD, memory)
        else:
            raise ValueError(f"alignment: {config.alignment!r} is not implemented")
        return value_B.mean(), critic_B.mean(), score(net.energy, x_BD.detach(), memory)

    def end_epoch(self, metrics: Mapping[str, float] | None) -> None:
        """Decay the learning rate; the released rule for eta: x 1.1 if any metric improved, else x 0.8, capped.

        That rule looks once in `eta_epochs`, at what improved since it last did, so that validating more often does
        not change the loss.
        """
        self.epoch += 1
        if self.config.decay_epochs:
            decays = self.epoch // self.config.decay_epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self.config.decay_factor**decays
        if self.config.eta_rule == "adaptive" and metrics is not None:
            improved = {name: value for name, value in metrics.items() if value > self.best.get(name, 0.0)}
            self.best |= improved
            self.improved = self.improved or bool(improved)
            if self.epoch - self.eta_changed >= self.config.eta_epochs:
                self.eta = min(1.0, 1.1 * self.eta) if self.improved else min(0.1, 0.8 * self.eta)
                self.eta_changed, self.improved = self.epoch, False

    # Inference

    def item_table(self) -> Tensor:
        """The vectors that targets are compared with, padding first.  [I, D]"""
        return self.module.items.weight.detach()

    def score(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        return self.represent(history_BL, user_B, noise) @ self.item_table().T

    def represent(self, history_BL: Tensor, user_B: Tensor, noise: UserNoise) -> Tensor:
        """The generated x^_0 of each user, whose inner products with the item table are the scores.  [B, D]"""
        return torch.cat([generated.float() for generated in self._parts(sampler.generate, history_BL, user_B, noise)])

    def probe(self, history_BL: Tensor, target_B: Tensor, user_B: Tensor, noise: UserNoise) -> dict[str, Tensor]:
        """Per-user values [B] of what correction, guidance and chain do for held-out targets."""
        others: tuple[Tensor, ...] = ()
        if self.module.guidance is not None and self.config.guidance_of == "self":
            with torch.no_grad(), self.compute.autocast():
                others = (self.guide_of_another(user_B),)
        parts = list(self._parts(inspect, history_BL, user_B, noise, target_B, *others))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _parts(
        self, function: Callable[..., Any], history_BL: Tensor, user_B: Tensor, noise: UserNoise, *per_user: Tensor
    ) -> Iterator[Any]:
        """function(net, packing, h, noise, ...) for one part of the users after the other."""
        history_BL = self.prepare(history_BL, noise)
        for rows, packing, own in noise.parts(history_BL, trim=not self.config.reads_padding):
            with torch.no_grad(), self.compute.autocast():
                h_BD = self.guide(packing, user_B[rows])
                result = function(self.module, packing, h_BD, own, *(value_B[rows] for value_B in per_user))
            yield result  # not within: the caller's products are its own

    def prepare(self, history_BL: Tensor, noise: UserNoise) -> Tensor:
        """Shuffle the order if this is that control; pad to full width if padding is read."""
        if self.config.history_order == "shuffled":
            key_BL = noise.normal_per_position(history_BL.shape[1], 1)[..., 0]
            key_BL = key_BL.masked_fill(history_BL == 0, -torch.inf)
            history_BL = history_BL.gather(1, key_BL.argsort(dim=1, stable=True))
        elif self.config.history_order != "kept":
            raise ValueError(f"history_order: {self.config.history_order!r} is not one of 'kept', 'shuffled'")
        return pad_left(history_BL, self.max_len) if self.config.reads_padding else history_BL

    def guide(self, packing: Packing, user_B: Tensor) -> Tensor | None:
        """h of the user's own history, or in that control of another's."""
        if self.config.guidance_of == "another":
            return self.guide_of_another(user_B)
        if self.config.guidance_of == "self":
            return self.module.guide(self.module.items(packing.item_N), packing)
        raise ValueError(f"guidance_of: {self.config.guidance_of!r} is not one of 'self', 'another'")

    def guide_of_another(self, user_B: Tensor) -> Tensor | None:
        """h of another user's training items for each user; whose, is fixed by the seed."""
        history_BL = self.data.histories(self.other_U[user_B], self.max_len)
        packing = Packing([pad_left(history_BL, self.max_len) if self.config.reads_padding else history_BL])
        return self.module.guide(self.module.items(packing.item_N), packing)

    def _circle(self) -> Tensor:
        """A user other than oneself for each: the successor on one random circle through all users.  [U]"""
        generator = torch.Generator().manual_seed(derive_seed(self.streams.seed, "guidance of another user"))
        circle = torch.randperm(len(self.data.lengths_U), generator=generator)
        other_U = torch.empty_like(circle)
        other_U[circle] = circle.roll(1)
        return other_U.to(self.compute.device)

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("eta", "epoch", "eta_changed", "improved")}
        return super().state_dict() | own | {"best": dict(self.best)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.eta, self.epoch, self.best = state["eta"], state["epoch"], dict(state["best"])
        self.eta_changed, self.improved = state["eta_changed"], state["improved"]
