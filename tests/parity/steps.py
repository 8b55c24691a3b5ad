"""What happens at each step of a reference's own training loop, seen from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from torch import Tensor


@contextlib.contextmanager
def backward_losses(after_first: Callable[[], None] = lambda: None) -> Iterator[list[Tensor]]:
    """Every loss that `backward` is called on inside; `after_first` is called when the first has made its gradients."""
    losses: list[Tensor] = []
    backward = torch.Tensor.backward

    def recorded(loss, *arguments, **options):
        backward(loss, *arguments, **options)
        losses.append(loss.detach().clone())
        if len(losses) == 1:
            after_first()

    with patch.object(torch.Tensor, "backward", recorded):
        yield losses
