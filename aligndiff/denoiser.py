"""The denoising predictor f_theta of eq 7: history tokens, mixed with x_t and modulated by h, to x~_0."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from aligndiff.config import Config
from harness.layers import Dropout, PreNormBlock, key_mask, sinusoidal

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

    def hidden(self, z_BLD: Tensor, history_BL: Tensor) -> Tensor:
        """Last position after the blocks, before the final LayerNorm.  [B, L, D] -> [B, D]"""
        if self.config.mask == "keys":
            mask, gate = key_mask(history_BL), None
        elif self.config.mask == "queries":
            # Padded rows attend uniformly to all keys, and no key is hidden: a query times 0 does just that.
            mask, gate = None, (history_BL > 0)[..., None]
        else:
            raise ValueError(f"mask: {self.config.mask!r} is not one of 'keys', 'queries'")
        for index, block in enumerate(self.blocks):
            z_BLD = block(z_BLD, mask, gate=gate, last_only=index == len(self.blocks) - 1)
        return z_BLD[:, -1]

    def finish(self, hidden_BD: Tensor) -> Tensor:
        """x~_0 from the hidden state; unit variance, always fp32."""
        return self.norm(self.dropout(hidden_BD).float())
