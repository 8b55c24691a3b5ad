"""Checkpoints that survive a kill at any moment: atomic, verified on load, bounded in number."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

KEEP = 2  # the newest and, should it be torn, the one before


class CheckpointFolder:
    """The checkpoints of one run.

    identity: digest of settings, data, code and arithmetic; a checkpoint of another identity is foreign and discarded.
    device: kind of device that computes the run, for `made_elsewhere`
    """

    def __init__(self, folder: str | Path, *, identity: str, device: str = "cpu") -> None:
        self._folder, self._identity, self._device = Path(folder), identity, device

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("epoch-*.ckpt"))

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write a whole checkpoint or nothing, then drop all but the newest two."""
        self._folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        content = {"identity": self._identity, "device": self._device, "epoch": epoch, "state": state}
        torch.save(content, buffer)
        payload = buffer.getvalue()
        temporary = self._folder / ".writing"  # one name, so that kills while writing leave one file at most
        try:
            with open(temporary, "wb") as file:
                file.write(hashlib.sha256(payload).hexdigest().encode())
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._folder / f"epoch-{epoch:06d}.ckpt")
        except OSError as error:  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(self._folder)) from error
        finally:
            temporary.unlink(missing_ok=True)
        for old in self._paths()[:-KEEP]:
            old.unlink()

    def load(self, problem_of: Callable[[dict[str, Any]], str | None] = lambda state: None) -> tuple[int, Any] | None:
        """Return (epoch, state) of the newest sound checkpoint of this run, or None.

        problem_of: says of a state why this run cannot go on from it, if it cannot. Torn, foreign and such checkpoints
        are removed with a message.
        """
        for path in reversed(self._paths()):
            problem, content = self._read(path)
            problem = problem or problem_of(content["state"])
            if problem is None:
                return content["epoch"], content["state"]
            log.warning("discarded checkpoint %s: %s", path, problem)
            path.unlink(missing_ok=True)
        return None

    def made_elsewhere(self) -> str | None:
        """The kind of device, if another than ours, that made the newest sound checkpoint."""
        for path in reversed(self._paths()):
            if found := self._read(path)[1].get("device"):
                return found if found != self._device else None
        return None

    def _read(self, path: Path) -> tuple[str | None, dict[str, Any]]:
        """What is wrong with a checkpoint, and what it holds as far as it can be read."""
        data = path.read_bytes()
        digest, payload = data[:64], data[64:]
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            return "torn or damaged", {}
        # weights_only: a checkpoint can hold tensors and plain values, never code.
        try:
            content = dict(torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu"))
            identity = content["identity"]
        except Exception as error:  # reading what nobody of ours wrote can fail in any way
            return f"not a checkpoint of this suite ({type(error).__name__})", {}
        if identity != self._identity:
            return "made by other settings, data or code, on another kind of device or in another precision", content
        return None, content

    def remove(self) -> None:
        """Delete the folder's checkpoints."""
        for path in [*self._paths(), self._folder / ".writing"]:
            path.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()
