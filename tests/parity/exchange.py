"""Two networks with the same weights, the same batch and the same random draws, and how far apart they end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from harness.layers import Dropout

# A gradient is measured against the largest one of its own parameter, or against this share of the largest of all:
# some are exactly zero (a bias on keys, which softmax ignores), and their rounding means nothing.
SMALLEST = 1e-6

INITIAL = "initial weights, in standard errors"  # name of a difference that is one of samples


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
            patch.object(torch, "float", torch.float64),
            patch.object(torch.Tensor, "float", torch.Tensor.double),
        ):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def visible_dropout(*more: type[nn.Module]) -> Iterator[None]:
    """Let dropout layers of both sides, and of the classes in `more`, scale by 1 - rate / 2 in training.

    Masks could not be exchanged, as each side draws its own; a scale shows whether every layer is where it belongs and
    has the right rate.
    """

    def forward(module: nn.Module, x: Tensor) -> Tensor:
        rate = module.drop_prob if hasattr(module, "drop_prob") else module.p
        return x * (1 - rate / 2) if module.training else x

    with contextlib.ExitStack() as stack:
        for layer in (nn.Dropout, Dropout, *more):
            stack.enter_context(patch.object(layer, "forward", forward))
        yield


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
    rows:   for parameters whose rows the reference orders differently: which of its rows are ours
    Raises ValueError on a parameter that is in neither list or of another shape, dimensions of size 1 aside (a
    convolution of width 1 is a linear layer).
    """

    def __init__(
        self,
        ours: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        names: Mapping[str, str],
        unused: tuple[str, ...] = (),
        rows: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.ours, self.theirs, self.names, self.rows = ours, theirs, dict(names), rows or {}
        missing = set(ours) ^ set(self.names)
        left = {name for name in set(theirs) - set(self.names.values()) if not name.startswith(unused)}
        left |= set(self.names.values()) - set(theirs)
        if missing or left:
            raise ValueError(f"weights without a counterpart: ours {sorted(missing)}, theirs {sorted(left)}")
        for name, other in self.names.items():
            if ours[name].squeeze().shape != theirs[other].squeeze().shape:
                raise ValueError(f"{name}: {tuple(ours[name].shape)}, {other}: {tuple(theirs[other].shape)}")

    def _as_ours(self, name: str, theirs: Tensor) -> Tensor:
        """A parameter of the reference, or its gradient, in the shape and order of ours."""
        theirs = theirs[self.rows[name]] if name in self.rows else theirs
        return theirs.detach().reshape(self.ours[name].shape).clone()

    def initial_difference(self) -> float:
        """How far means and spreads of freshly made parameters lie apart, in standard errors; the largest.

        Raises ValueError where one side starts from a constant that the other does not have.
        """
        return max(_standard_errors(name, *pair) for name, pair in self.values().items())

    def copy(self) -> None:
        """Give ours the reference's values."""
        with torch.no_grad():
            for name, (_, theirs) in self.values().items():
                self.ours[name].copy_(theirs)

    def forget_gradients(self) -> None:
        for parameter in (*self.ours.values(), *self.theirs.values()):
            parameter.grad = None

    def values(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Copies of each shared parameter, ours and theirs, by our name."""
        pairs = ((name, self.ours[name].detach().clone(), self.theirs[other]) for name, other in self.names.items())
        return {name: (ours, self._as_ours(name, theirs)) for name, ours, theirs in pairs}

    def update_difference(self, before: Mapping[str, tuple[Tensor, Tensor]]) -> float:
        """Largest relative difference of what was added to any shared parameter since `before`."""
        after = self.values()
        changes = {name: tuple(new - old for new, old in zip(after[name], before[name], strict=True)) for name in after}
        return max(_differences(changes).values())

    def gradient_differences(self) -> dict[str, float]:
        """Relative difference of each shared parameter's gradient, by our name."""
        pairs = (
            (name, _gradient(self.ours[name]), _gradient(self.theirs[other])) for name, other in self.names.items()
        )
        return _differences({name: (ours, self._as_ours(name, theirs)) for name, ours, theirs in pairs})

    def gradient_difference(self) -> float:
        return max(self.gradient_differences().values())


def _standard_errors(name: str, ours: Tensor, theirs: Tensor) -> float:
    """Difference of two samples' means or standard deviations, over its own standard error for normal values."""
    if ours.numel() == 1:
        return 0.0  # no sample to speak of
    stds = [float(values.std(unbiased=False)) for values in (ours, theirs)]
    if min(stds) == 0:
        if max(stds) > 0 or not torch.equal(ours, theirs):
            raise ValueError(f"{name}: one side starts from another constant")
        return 0.0
    error = math.hypot(*stds) / math.sqrt(ours.numel())
    return max(abs(float(ours.mean() - theirs.mean())) / error, abs(stds[0] - stds[1]) / (error / math.sqrt(2)))


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _differences(pairs: Mapping[str, tuple[Tensor, ...]]) -> dict[str, float]:
    """Relative difference of each pair of ours and theirs, see SMALLEST."""
    floor = SMALLEST * max(float(theirs.abs().max()) for _, theirs in pairs.values())
    return {name: relative_difference(*pair, floor=floor) for name, pair in pairs.items()}


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
        self.draws.append(draw.clone())  # as what we draw may be changed in place
        return draw

    def take(self, *shape: int) -> Tensor:
        """The oldest draw of that many values, in the shape asked for."""
        for index, draw in enumerate(self.draws):
            if draw.numel() == math.prod(shape):
                return self.draws.pop(index).reshape(shape)
        raise ValueError(f"no draw of {math.prod(shape)} values is left; there are {[d.numel() for d in self.draws]}")

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keep what torch.randn, torch.rand and torch.randint return inside, normal values in the default precision."""
        normal, uniform, integers = torch.randn, torch.rand, torch.randint

        def randn(*arguments, **options):
            return self.add(normal(*arguments, **options).to(torch.get_default_dtype()))

        def keep(draw):
            return lambda *arguments, **options: self.add(draw(*arguments, **options))

        with (
            patch.object(torch, "randn", randn),
            patch.object(torch, "rand", keep(uniform)),
            patch.object(torch, "randint", keep(integers)),
        ):
            yield

    @contextlib.contextmanager
    def replaying(self) -> Iterator[None]:
        """Answer normal draws and integers of torch and numpy from the tape inside."""
        with (
            patch.object(torch, "randn", lambda *shape, **_: self.take(*_flat(shape))),
            patch.object(torch, "randn_like", lambda x, **_: self.take(*x.shape)),
            patch.object(torch, "randint", lambda *_, size, **__: self.take(*size)),
            patch.object(torch, "normal", lambda mean, std: mean + std * self.take(*mean.shape)),
            patch.object(np.random, "normal", lambda mean, std, size: mean + std * self.take(*size).numpy()),
            patch.object(np.random, "choice", lambda a, size=None, **_: self.take(*_flat((size,))).numpy()),
        ):
            yield


def _flat(shape) -> tuple[int, ...]:
    """Accept sizes one by one or as one tuple."""
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else tuple(shape)
