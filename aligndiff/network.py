"""All weights of AlignDiff in one module, and the forward pass that training and the sampler share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aligndiff import schedule
from aligndiff.config import Config
from aligndiff.denoiser import Denoiser
from aligndiff.energy import make_energy
from aligndiff.guidance import make_guidance
from harness.layers import Dropout
from harness.packing import Packing

EPS = 1e-12  # of the tokens' LayerNorm, as DiffuRec


class AlignDiff(nn.Module):
    """Item table, guidance, null vector, predictor and energy; inference-only options add or remove no weight."""

    def __init__(self, config: Config, num_items: int) -> None:
        super().__init__()
        self.config = config
        dim = config.embedding_dim
        self.items = nn.Embedding(num_items + 1, dim)
        nn.init.normal_(self.items.weight, std=config.embedding_std)
        self.item_norm, self.item_dropout = nn.LayerNorm(dim, eps=EPS), Dropout(config.embedding_dropout)
        self.guidance = make_guidance(config)
        # The learned null condition starts at the scale of h, so that dropping h does not look like an outlier.
        self.null = nn.Parameter(torch.randn(dim) * config.guidance_gain) if self.guidance else None
        self.denoiser = Denoiser(config)
        self.energy = make_energy(config)
        self.target_process, self.energy_process = schedule.target_process(config), schedule.energy_process(config)
        self.alpha_0 = schedule.alpha_0(config)

    def tokens(self, embedded: Tensor) -> Tensor:
        """e_i of eq 7: LayerNorm after dropout of the embedded history.  [..., D] -> [..., D]"""
        return self.item_norm(self.item_dropout(embedded))

    def guide(self, embedded_ND: Tensor, packing: Packing) -> Tensor | None:
        """h [B, D], or None without guidance."""
        return self.guidance(embedded_ND, packing, self.item_norm) if self.guidance else None

    def modulate(self, token_ND: Tensor, h_BD: Tensor | None, packing: Packing) -> Tensor:
        """(1 + h) e_i of eq 7; e_i without guidance."""
        return token_ND if h_BD is None else packing.spread(1 + h_BD) * token_ND

    def noisy(self, x_t_BD: Tensor, step_B: Tensor) -> Tensor:
        """x_t + d_t of eq 7."""
        return x_t_BD + self.denoiser.embed_step(step_B)

    def begin(self, embedding_BD: Tensor, noise_BD: Tensor) -> Tensor:
        """x_0 ~ N(sqrt(alpha_0) e_y, (1 - alpha_0) I)."""
        return self.alpha_0**0.5 * embedding_BD + (1 - self.alpha_0) ** 0.5 * noise_BD
