"""The denoising predictor f_theta of eq 7: history tokens, mixed with x_t and modulated by h, to x~_0."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from aligndiff.config import Config
from harness.layers import Dropout, PreNormBlock, last_hidden, sinusoidal
from harness.packing import Packing

TIME_SCALE = 1000.0  # steps are rescaled to 0..1000, as DiffuRec
EPS = 1e-12  # of the final LayerNorm, as DiffuRec


class Denoiser(nn.Module):
    """Step embedding, Transformer blocks, final LayerNorm; only the last position is read."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.config = config
        self.time_inner, self.time_outer = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.blocks = nn.ModuleList(
            PreNormBlock(dim, config.num_heads, config.dropout) for _ in range(config.num_blocks)
        )
        self.dropout, self.norm = Dropout(config.dropout), nn.LayerNorm(dim, eps=EPS)
        if config.block_init == "xavier_normal":
            for block in self.blocks:
                for linear in (block.attention.output, block.feed_forward.inner, block.feed_forward.outer):
                    nn.init.xavier_normal_(linear.weight)

    def embed_step(self, step_B: Tensor) -> Tensor:
        """d_t of steps 0..T-1.  [B] -> [B, D]"""
        scaled_B = step_B * (TIME_SCALE / self.config.num_steps)
        return self.time_outer(F.silu(self.time_inner(sinusoidal(scaled_B, self.config.embedding_dim))))

    def hidden(self, z_ND: Tensor, packing: Packing) -> Tensor:
        """Newest item after the blocks, before the final LayerNorm.  [N, D] -> [B, D]"""
        return last_hidden(self.blocks, z_ND, packing, self.config.mask)

    def finish(self, hidden_BD: Tensor) -> Tensor:
        """x~_0 from the hidden state; unit variance, always fp32."""
        return self.norm(self.dropout(hidden_BD).float())
