"""The run record: what was run, on what, with what outcome. Failures are recorded, not deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.digest import file_sha256
from harness.files import replacing

SCHEMA: Final = 1
STATUSES: Final = ("completed", "diverged", "out_of_memory")
RANK_KEYS: Final = ("test_kept", "test_hidden", "val_kept", "val_hidden")


class CorruptRecordError(ValueError):
    """A record or one of its files is damaged; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One cell of the grid. Metrics are fractions; times are seconds; memory is bytes."""

    schema: int = SCHEMA
    dataset: str
    method: str
    seed: int
    display: str
    variant_of: str | None = None  # the method this is a variant of, for grouping in tables
    settings: dict[str, Any]  # resolved: every default spelled out
    settings_sha256: str
    data_sha256: str
    code_digest: str
    environment: dict[str, Any]
    status: str
    reason: str | None = None  # why a run that did not complete ended
    best_epoch: int | None = None
    epochs_run: int = 0
    val_metric: float | None = None
    num_parameters: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    peak_memory_bytes: int = 0
    started: str = ""  # of the first process, of a failed run the last; it may have stood still between two
    finished: str = ""
    resumes: int | None = None  # times it went on from a checkpoint; None: failed, or from before this was counted
    num_users: int = 0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    diagnostics: dict[str, float] = field(default_factory=dict)
    ranks_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise CorruptRecordError(f"status {self.status!r}: legal values are {', '.join(STATUSES)}")
        if self.schema != SCHEMA:
            raise CorruptRecordError(f"record schema {self.schema}: this code reads schema {SCHEMA}")

    @property
    def completed(self) -> bool:
        return self.status == "completed"


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a whole file or nothing, and have it on the disk before returning."""
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_record(record: RunRecord, path: str | Path) -> None:
    text = json.dumps(dataclasses.asdict(record), indent=1, sort_keys=True, allow_nan=False)
    write_text_atomically(path, text + "\n")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of strict JSON")


def read_record(path: str | Path) -> RunRecord:
    """Read a record and check it.  Raises CorruptRecordError naming the file."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        return RunRecord(**values)
    except (OSError, TypeError, ValueError) as error:
        raise CorruptRecordError(f"{path}: not a readable run record ({error}); delete it and run again") from error


def failures(paths: Iterable[str | Path], most: int = 5) -> list[str]:
    """One line for each run that ended without a result, with the reason; beyond `most` only how many more."""
    lines = []
    for path in paths:
        with contextlib.suppress(CorruptRecordError):  # missing or damaged: said elsewhere
            record = read_record(path)
            if not record.completed:
                lines.append(f"{record.dataset}/{record.method}/seed{record.seed}: {record.status}, {record.reason}")
    return lines[:most] + ([f"and {len(lines) - most} more"] if len(lines) > most else [])


def write_ranks(path: str | Path, ranks: dict[str, NDArray[np.integer]]) -> str:
    """Store the rank of each user's target, one int32 array per RANK_KEYS entry; return the file's digest."""
    unknown = set(ranks) - set(RANK_KEYS)
    if unknown:
        raise ValueError(f"ranks: unknown arrays {sorted(unknown)}, legal are {', '.join(RANK_KEYS)}")
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **{key: np.asarray(value, dtype=np.int32) for key, value in ranks.items()})
    return file_sha256(path)


def read_ranks(record_path: str | Path, record: RunRecord) -> dict[str, NDArray[np.int32]]:
    """Read the ranks beside a record and check their digest.  Raises CorruptRecordError naming the file."""
    path = Path(record_path).parent / "ranks.npz"
    try:
        if file_sha256(path) != record.ranks_sha256:
            raise CorruptRecordError(
                f"{path}: digest differs from its record's; delete it and record.json, and run again"
            )
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except CorruptRecordError:
        raise
    except Exception as error:  # a damaged archive fails in many ways: zip, zlib, header
        raise CorruptRecordError(
            f"{path}: cannot be read ({error}); delete it and record.json, and run again"
        ) from error
