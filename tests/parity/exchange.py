"""Two networks with the same weights, the same batch and the same random draws, and how far apart they end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

# A gradient is measured against the largest one of its own parameter, or against this share of the largest of all:
# some are exactly zero (a bias on keys, which softmax ignores), and their rounding means nothing.
SMALLEST_GRADIENT = 1e-6


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Compute in float64 inside, explicit casts to float32 included: what still differs is not rounding.

    torch's global generator has a fixed seed inside, and its own state back afterwards.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            patch.object(torch, "float32", torch.float64),
            patch.object(torch.Tensor, "float", torch.Tensor.double),
        ):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def scramble(module: nn.Module, *, std: float = 0.1, seed: int = 0) -> None:
    """Move every weight away from its initial value, so that no bias is 0 and no gain 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator)


class Weights:
    """Which parameter of ours is which of the reference's; copies values and compares gradients.

    ours, theirs: parameters by name
    names:  ours -> theirs; every parameter of ours must be in it
    unused: beginnings of the names that only the reference has
    Raises ValueError on a parameter that is in neither list or of another shape.
    """

    def __init__(
        self,
        ours: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        names: Mapping[str, str],
        unused: tuple[str, ...] = (),
    ) -> None:
        self.ours, self.theirs, self.names = ours, theirs, dict(names)
        missing = set(ours) ^ set(self.names)
        left = {name for name in set(theirs) - set(self.names.values()) if not name.startswith(unused)}
        left |= set(self.names.values()) - set(theirs)
        if missing or left:
            raise ValueError(f"weights without a counterpart: ours {sorted(missing)}, theirs {sorted(left)}")
        for name, other in self.names.items():
            if ours[name].shape != theirs[other].shape:
                raise ValueError(f"{name}: {tuple(ours[name].shape)}, {other}: {tuple(theirs[other].shape)}")

    def copy(self) -> None:
        """Give ours the reference's values."""
        with torch.no_grad():
            for name, other in self.names.items():
                self.ours[name].copy_(self.theirs[other])

    def forget_gradients(self) -> None:
        for parameter in (*self.ours.values(), *self.theirs.values()):
            parameter.grad = None

    def gradient_differences(self) -> dict[str, float]:
        """Relative difference of each shared parameter's gradient, by our name."""
        pairs = {
            name: (_gradient(self.ours[name]), _gradient(self.theirs[other])) for name, other in self.names.items()
        }
        floor = SMALLEST_GRADIENT * max(float(theirs.abs().max()) for _, theirs in pairs.values())
        return {name: relative_difference(*pair, floor=floor) for name, pair in pairs.items()}

    def gradient_difference(self) -> float:
        return max(self.gradient_differences().values())


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def relative_difference(ours: Tensor, theirs: Tensor, *, floor: float = 0.0) -> float:
    """Largest absolute difference over the largest absolute value of the reference, or over `floor` if that is more.

    Raises ValueError if shapes differ or a value of either is not finite.
    """
    ours, theirs = ours.detach().double(), theirs.detach().double()
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: ours {tuple(ours.shape)}, theirs {tuple(theirs.shape)}")
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        raise ValueError("not all values are finite")
    scale = max(float(theirs.abs().max()), floor)
    return float((ours - theirs).abs().max()) / scale if scale > 0 else float(ours.abs().max())


class Tape:
    """Our random draws, kept while we compute and handed to the reference when it asks for so many values."""

    def __init__(self) -> None:
        self.draws: list[Tensor] = []

    def add(self, draw: Tensor) -> Tensor:
        self.draws.append(draw.clone())  # what we draw may be changed in place
        return draw

    def take(self, *shape: int) -> Tensor:
        """The oldest draw of that many values, in the shape asked for."""
        for index, draw in enumerate(self.draws):
            if draw.numel() == math.prod(shape):
                return self.draws.pop(index).reshape(shape)
        raise ValueError(f"no draw of {math.prod(shape)} values is left; there are {[d.numel() for d in self.draws]}")

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keep what torch.randn and torch.randint return inside, in the default precision."""
        normal, integers = torch.randn, torch.randint

        def randn(*arguments, **options):
            return self.add(normal(*arguments, **options).to(torch.get_default_dtype()))

        def randint(*arguments, **options):
            return self.add(integers(*arguments, **options))

        with patch.object(torch, "randn", randn), patch.object(torch, "randint", randint):
            yield

    @contextlib.contextmanager
    def replaying(self) -> Iterator[None]:
        """Answer normal draws of torch and numpy and numpy's choices from the tape inside."""
        with (
            patch.object(torch, "randn", lambda *shape, **_: self.take(*_flat(shape))),
            patch.object(torch, "randn_like", lambda x, **_: self.take(*x.shape)),
            patch.object(torch, "normal", lambda mean, std: mean + std * self.take(*mean.shape)),
            patch.object(np.random, "choice", lambda a, size=None, **_: self.take(*_flat((size,))).numpy()),
        ):
            yield


def _flat(shape) -> tuple[int, ...]:
    """Accept sizes one by one or as one tuple."""
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else tuple(shape)
