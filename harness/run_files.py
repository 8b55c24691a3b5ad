"""Where a run leaves its outputs, and how they outlast Snakemake, which deletes them before it starts a job again."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.files import replacing


@dataclass(frozen=True)
class RunFiles:
    """Where a run leaves its outputs."""

    folder: Path
    trained: bool = True  # False: it evaluates another's weights, and leaves record and ranks only

    @property
    def record(self) -> Path:
        return self.folder / "record.json"

    @property
    def ranks(self) -> Path:
        return self.folder / "ranks.npz"

    @property
    def history(self) -> Path:
        return self.folder / "history.csv"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All of them, in the order in which they are written."""
        return (*((self.history, self.weights) if self.trained else ()), self.ranks, self.record)

    @property
    def kept(self) -> RunFiles:
        """Where the outputs stay when Snakemake, which does not know of this folder, deletes them before a rerun."""
        return RunFiles(self.folder / ".finished", self.trained)

    def keep(self) -> bool:
        """Put hard links to the outputs there, the one that proves them last, in place of an older run's.

        False: it could not be done, as on a file system without hard links, or for an output that is gone.
        """
        shutil.rmtree(self.kept.folder, ignore_errors=True)
        try:
            self.kept.folder.mkdir()
            for path, link in zip(self.outputs, self.kept.outputs, strict=True):
                os.link(path, link)
        except OSError:
            return False
        return True

    def take_back(self) -> None:
        """Make outputs of what was kept, which stays."""
        for kept, path in zip(self.kept.outputs, self.outputs, strict=True):
            with replacing(path) as partial:
                os.link(kept, partial)
            os.utime(path)  # newer than its inputs, as Snakemake expects of what a job leaves
