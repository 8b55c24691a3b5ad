"""Named random streams: all randomness of a run comes from one seed through names."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from harness.packing import Packing

TOKENS_AT_ONCE = 2048


def derive_seed(seed: int, name: str) -> int:
    """Map (seed, name) to a 63-bit seed by SHA-256; Python's own hash() is salted and would differ per process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


class Streams:
    """Independent generators of one run: `Streams(seed).torch("shuffle")`, `.torch("noise")`.

    Drawing more from one stream leaves the others where they were. Layers that know only torch's global
    generator (weight initialisation, dropout) get it seeded from a named stream by `seed_global`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._torch: dict[str, torch.Generator] = {}

    def torch(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        if name not in self._torch:
            generator = torch.Generator(device=device)
            self._torch[name] = generator.manual_seed(derive_seed(self.seed, name))
        return self._torch[name]

    def seed_global(self, name: str) -> None:
        """Seed torch's global generators (CPU and CUDA) from the stream `name`."""
        torch.manual_seed(derive_seed(self.seed, name))

    def state_dict(self) -> dict[str, Any]:
        """Return where every stream stands, torch's global generators included."""
        state: dict[str, Any] = {
            "torch": {name: (str(g.device), g.get_state()) for name, g in self._torch.items()},
            "global_cpu": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            state["global_cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, (device, value) in state["torch"].items():
            self.torch(name, device).set_state(value)
        torch.set_rng_state(state["global_cpu"])
        if "global_cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["global_cuda"])


@contextlib.contextmanager
def forked_global_stream() -> Iterator[None]:
    """Leave torch's global generators as they were found: evaluation inside cannot disturb training."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield


class UserNoise:
    """Gaussian noise for the users of one evaluation batch, drawn block by block.

    Users are ranked in fixed blocks (see `harness.ranking`), each with a generator of its own, so neither the
    number of blocks scored together nor the order of batches changes what a user draws.
    """

    def __init__(self, generators: list[torch.Generator], sizes: list[int], widths: list[int]) -> None:
        self._generators, self._sizes, self._widths = generators, sizes, widths

    def normal(self, *shape: int) -> torch.Tensor:
        """[B, *shape] standard normal values."""
        draws = [
            torch.randn(size, *shape, generator=generator, device=generator.device)
            for generator, size in zip(self._generators, self._sizes, strict=True)
        ]
        return draws[0] if len(draws) == 1 else torch.cat(draws)

    def normal_per_position(self, length: int, dim: int, *, full: bool = False) -> torch.Tensor:
        """[B, length, dim] standard normal values, right-aligned.

        A block draws only as many positions as its own longest history has, so that trimming a batch to another
        length changes nothing; further positions are padding and read 0. With `full` all positions are drawn.
        """
        draws = []
        for generator, size, width in zip(self._generators, self._sizes, self._widths, strict=True):
            width = length if full else min(width, length)
            draw = torch.randn(size, width, dim, generator=generator, device=generator.device)
            draws.append(torch.nn.functional.pad(draw, (0, 0, length - width, 0)) if width < length else draw)
        return draws[0] if len(draws) == 1 else torch.cat(draws)

    def normal_per_token(self, packing: Packing, dim: int, *, full: bool = False) -> torch.Tensor:
        """The same values for packed users, [N, dim]; groups are the blocks (see `parts`) or one of all users."""
        if len(packing.histories) != len(self._generators):
            (history_BL,) = packing.histories
            return self.normal_per_position(history_BL.shape[1], dim, full=full).flatten(0, 1)
        return torch.cat(
            [
                torch.randn(*history_RW.shape, dim, generator=generator, device=generator.device).flatten(0, 1)
                for generator, history_RW in zip(self._generators, packing.histories, strict=True)
            ]
        )

    def parts(self, history_BL: torch.Tensor, *, trim: bool = True) -> Iterator[tuple[slice, Packing, UserNoise]]:
        """An evaluation batch in parts of about TOKENS_AT_ONCE tokens, blocks packed and trimmed; a GPU gets it whole.

        A part's activations stay in a CPU's cache. Without `trim` every token of history_BL is kept.
        """
        widths = [max(1, min(width, history_BL.shape[1])) if trim else history_BL.shape[1] for width in self._widths]
        if not history_BL.is_cpu:
            yield slice(0, len(history_BL)), Packing([history_BL[:, -max(widths) :]]), self
            return
        first, begin, end, pending = 0, 0, 0, []
        for index, (size, width) in enumerate(zip(self._sizes, widths, strict=True)):
            pending.append(history_BL[end : end + size, -width:])
            end += size
            if sum(part.numel() for part in pending) >= TOKENS_AT_ONCE or end == len(history_BL):
                yield slice(begin, end), Packing(pending), self._blocks(slice(first, index + 1))
                first, begin, pending = index + 1, end, []

    def _blocks(self, chosen: slice) -> UserNoise:
        return UserNoise(self._generators[chosen], self._sizes[chosen], self._widths[chosen])

    @classmethod
    def single(cls, size: int, width: int, *, seed: int = 0, device: str = "cpu") -> UserNoise:
        """Noise for one block of users, for tests and interactive use."""
        return cls([torch.Generator(device=device).manual_seed(seed)], [size], [width])
