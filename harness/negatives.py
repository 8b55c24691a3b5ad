"""Negative items drawn on the device: uniform outside what a user already has, or by weight for a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.windows import ResidentSequences


class NegativeSampler:
    """Draws item ids uniformly from 1..num_items, rejecting those in the user's sequence.

    Give it training sequences only: a sampler that also avoids the validation and test items never pushes them
    down, which leaks them (S3-Rec's loader, inherited by STOSA and CaDiRec, does so).
    """

    def __init__(self, data: ResidentSequences) -> None:
        self._num_items = data.num_items
        device = data.items_N.device
        user_N = torch.repeat_interleave(torch.arange(len(data.lengths_U), device=device), data.lengths_U)
        self._keys_N = self._key(user_N, data.items_N).sort().values

    def _key(self, user: Tensor, item: Tensor) -> Tensor:
        return user * (self._num_items + 1) + item

    def _is_taken(self, user: Tensor, item: Tensor) -> Tensor:
        key = self._key(user, item)
        place = torch.searchsorted(self._keys_N, key).clamp(max=len(self._keys_N) - 1)
        return self._keys_N[place] == key

    def draw(self, user_B: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """[B, *shape] negatives, each outside the sequence of its row's user.

        Raises ValueError for a user who already has every item.
        """
        user = user_B.view(-1, *[1] * len(shape)).expand(-1, *shape).reshape(-1)
        item = self._uniform(len(user), generator)
        pending = self._is_taken(user, item).nonzero().squeeze(1)
        for _ in range(1000):
            if len(pending) == 0:
                return item.view(len(user_B), *shape)
            item[pending] = self._uniform(len(pending), generator)
            pending = pending[self._is_taken(user[pending], item[pending])]
        raise ValueError(f"negatives: user row {int(user[pending[0]])} leaves no item to draw from {self._num_items}")

    def _uniform(self, count: int, generator: torch.Generator) -> Tensor:
        draw = torch.randint(1, self._num_items + 1, (count,), generator=generator, device=generator.device)
        return draw.to(self._keys_N.device)


def draw_weighted(cumulative_I: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[count] ids, repeats allowed, each with the weight by which `cumulative_I` (float64, [I]) rises there."""
    draw_N = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
    place_N = torch.searchsorted(cumulative_I, draw_N * cumulative_I[-1], right=True)
    return place_N.clamp(max=len(cumulative_I) - 1)
