"""Where a run leaves its outputs, and how they outlast Snakemake, which deletes them before it starts a job again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.digest import file_sha256
from harness.files import replacing
from harness.record import write_text_atomically


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

    @property
    def _digests(self) -> Path:
        return self.folder / "sha256.json"

    def keep(self) -> bool:
        """Put hard links to the outputs there, and last their digests, in place of an older run's.

        False: it could not be done, as on a file system without hard links, or for an output that is gone.
        """
        shutil.rmtree(self.kept.folder, ignore_errors=True)
        try:
            self.kept.folder.mkdir()
            for path, link in zip(self.outputs, self.kept.outputs, strict=True):
                os.link(path, link)
            write_text_atomically(self.kept._digests, json.dumps(self.kept._found()))
        except OSError:
            return False
        return True

    def _found(self) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in self.outputs}

    def is_kept(self) -> bool:
        """Whether all outputs are there as they were when they were kept: a link shares what happens to its file."""
        try:
            return json.loads(self.kept._digests.read_text(encoding="utf-8")) == self.kept._found()
        except (OSError, ValueError):
            return False

    def weights_altered(self) -> bool:
        """Whether the weights are not those that the run had when it finished; False where no digest of it was kept.

        Their format has no checksum: a flipped bit changes a weight and nothing else. What was kept may be of an older
        run, if this one failed or was killed at its end; then the records differ.
        """
        try:
            kept = json.loads(self.kept._digests.read_text(encoding="utf-8"))
            same_run = kept[self.record.name] == file_sha256(self.record)
            return same_run and kept[self.weights.name] != file_sha256(self.weights)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def take_back(self) -> None:
        """Make outputs of what was kept, which stays."""
        for kept, path in zip(self.kept.outputs, self.outputs, strict=True):
            with replacing(path) as partial:
                os.link(kept, partial)
            os.utime(path)  # newer than its inputs, as Snakemake expects of what a job leaves

    def sweep(self) -> None:
        """Remove what kill -9 left half-written, see harness.files.replacing."""
        for partial in self.folder.glob(".*.*.*"):
            partial.unlink()
