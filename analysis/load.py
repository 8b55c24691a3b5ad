"""Run records and ranks as one tidy table, with runs that must not be averaged kept apart.

Every figure is recomputed from the ranks, so any cut-off is available, and compared with the record's own: a
record and ranks that disagree are refused. Runs of one method on one dataset belong together only if data, code
and settings have the same digests and they computed in the same precision, all on GPUs or all on CPUs; all runs on one
dataset must share its data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.metrics import summarise
from harness.record import CorruptRecordError, RunRecord, read_ranks, read_record

PROTOCOLS = {"kept": "seen items stay candidates", "hidden": "seen items removed"}  # headline first
KINDS = ("data", "code", "settings", "precision")  # what runs that are averaged have in common
TABLE_COLUMNS = ("dataset", "method", "seed", "protocol", "metric", "value", "record")
TOLERANCE = 1e-9  # between a record's metrics and those of its ranks, both float64 means


class MixedRunsError(ValueError):
    """Runs that would be averaged differ in one of KINDS; the message names two records."""


@dataclass(frozen=True)
class Run:
    """One run."""

    path: str  # of the record, as found on disk
    record: RunRecord
    group: str = ""  # what tells mixed runs of one method apart, e.g. "code 3fa2c1d0"
    ranks: dict[str, NDArray[np.int32]] = field(default_factory=dict, repr=False)

    @property
    def suffix(self) -> str:
        """What the name of its method continues with where mixed runs are shown as separate rows."""
        return f" [{self.group}]" if self.group else ""

    @property
    def method(self) -> str:
        """Its method, as a row of its own where mixed runs are shown."""
        return self.record.method + self.suffix

    @property
    def key(self) -> str:
        """Folder of the run below the folder of all runs; also its name in the report."""
        return f"{self.record.dataset}/{self.record.method}/seed{self.record.seed}"

    @property
    def cut_off(self) -> bool:
        """Whether the limit of epochs ended it before early stopping did, so that more might have been better."""
        record, plan = self.record, self.record.settings["training"]
        if record.best_epoch is None or record.epochs_run < plan["max_epochs"]:
            return False
        later = range(record.best_epoch + 1, record.epochs_run + 1)
        first, every = plan["first_eval"], plan["eval_every"]
        stale = [e for e in later if e >= first and (e - first) % every == 0 or e == record.epochs_run]
        return len(stale) < plan["patience"]


def kinds(record: RunRecord) -> dict[str, str]:
    """What tells a run from others of its method, by KINDS: start of each digest, precision with kind of device."""
    digests = (record.data_sha256, record.code_digest, record.settings_sha256)
    return dict(zip(KINDS, (*(digest[:8] for digest in digests), _precision(record.environment)), strict=True))


def _precision(place: Mapping[str, Any]) -> str:
    """As "bf16 on CPU"; emulated products round like a processor's own, so they are of the same kind."""
    precision, on_cpu = place.get("precision", "fp32"), place.get("device", "cpu") == "cpu"
    through = " through oneDNN" if on_cpu and place.get("float32_matmul_precision", "highest") != "highest" else ""
    return f"{precision}{through} on {'CPU' if on_cpu else 'GPU'}"


@dataclass(frozen=True)
class Problem:
    """A run that could not be read, under partial results."""

    key: str
    path: str
    message: str


@dataclass(frozen=True)
class Runs:
    """All runs of a folder, in order of dataset, method and seed."""

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...] = ()
    outside: tuple[Run, ...] = ()  # runs that the plan does not name: listed, and in no table, figure or test
    mixed_data: frozenset[str] = frozenset()  # datasets whose runs saw different data, under allow_mixed

    def of(self, dataset: str, method: str, *, completed: bool = False) -> list[Run]:
        found = [run for run in self.runs if (run.record.dataset, run.method) == (dataset, method)]
        return [run for run in found if run.record.completed] if completed else found

    def methods_of(self, dataset: str, method: str) -> list[str]:
        """The names under which a method's runs appear: itself, or one per group if they are mixed."""
        groups = [r.method for r in self.runs if (r.record.dataset, r.record.method) == (dataset, method)]
        return list(dict.fromkeys(groups)) or [method]

    def table(self, cutoffs: Iterable[int]) -> pd.DataFrame:
        """One row per completed run, protocol and metric; values are fractions.  Columns: TABLE_COLUMNS."""
        cutoffs = tuple(cutoffs)
        rows = [
            (run.record.dataset, run.method, run.record.seed, protocol, metric, value, run.path)
            for run in self.runs
            for protocol in PROTOCOLS
            if (rank_U := run.ranks.get(f"test_{protocol}")) is not None
            for metric, value in summarise(rank_U, cutoffs).items()
        ]
        return pd.DataFrame(rows, columns=list(TABLE_COLUMNS))


def load_runs(
    folder: Path | str,
    *,
    planned: Collection[str] | None = None,
    skip_corrupt: bool = False,
    allow_mixed: bool = False,
) -> Runs:
    """Read {folder}/{dataset}/{method}/seed{seed}/record.json and the ranks beside each.

    planned: folders of the runs that count, all by default; what is wrong with others is no reason to refuse these.
    skip_corrupt: report an unreadable run in `problems` instead of refusing all.
    allow_mixed: give runs of different digests separate names instead of refusing.
    Raises CorruptRecordError naming the file, MixedRunsError naming two records, ValueError without a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of runs; run the workflow first or correct --runs")
    runs, outside, problems = [], [], []
    for path in sorted(folder.glob("*/*/seed*/record.json")):
        key = "/".join(path.parts[-4:-1])
        counts = planned is None or key in planned
        try:
            (runs if counts else outside).append(_load(path))
        except CorruptRecordError as error:
            if counts and not skip_corrupt:
                raise
            problems.append(Problem(key, str(path), str(error)))
    for found in (runs, outside):
        found.sort(key=lambda run: (run.record.dataset, run.record.method, run.record.seed))
    mixed_data = _differing_data(runs)
    if not allow_mixed:
        _refuse_mixed(runs)
    return Runs(tuple(_separated(runs)), tuple(problems), tuple(outside), frozenset(mixed_data))


def _load(path: Path) -> Run:
    record = read_record(path)
    run = Run(str(path), record)
    if run.key != "/".join(path.parts[-4:-1]):
        raise CorruptRecordError(f"{path}: is the record of {run.key}, so its folder was copied or renamed")
    if not record.completed:
        return run
    ranks = {name: rank_U for name, rank_U in read_ranks(path, record).items() if name.startswith("test_")}
    if not ranks:
        raise CorruptRecordError(f"{path}: a completed run without ranks of test users; delete its folder, run again")
    for name, rank_U in ranks.items():
        _check_ranks(path, record, name, rank_U)
    return replace(run, ranks=ranks)


def _check_ranks(path: Path, record: RunRecord, name: str, rank_U: NDArray[np.int32]) -> None:
    if rank_U.ndim != 1 or len(rank_U) != record.num_users or (len(rank_U) and rank_U.min() < 1):
        raise CorruptRecordError(
            f"{path}: {name} in ranks.npz is not one rank >= 1 for each of {record.num_users} users"
        )
    stated = record.metrics.get(name, {})
    found = summarise(rank_U, sorted({int(metric.partition("@")[2]) for metric in stated}))
    wrong = [m for m in stated if abs(found.get(m, np.inf) - stated[m]) > TOLERANCE]
    if wrong:
        raise CorruptRecordError(
            f"{path}: states {name} {wrong[0]} = {stated[wrong[0]]}, its ranks give {found.get(wrong[0])}"
        )


def _differing_data(runs: Sequence[Run]) -> set[str]:
    seen: dict[str, set[str]] = {}
    for run in runs:
        seen.setdefault(run.record.dataset, set()).add(run.record.data_sha256)
    return {dataset for dataset, digests in seen.items() if len(digests) > 1}


def _refuse_mixed(runs: Sequence[Run]) -> None:
    first_on: dict[str, Run] = {}
    first_of: dict[tuple[str, str], Run] = {}
    for run in runs:
        other = first_on.setdefault(run.record.dataset, run)
        _refuse_pair(other, run, "data")
        other = first_of.setdefault((run.record.dataset, run.record.method), run)
        for kind in ("code", "settings", "precision"):
            _refuse_pair(other, run, kind)


def _refuse_pair(one: Run, other: Run, kind: str) -> None:
    values = [kinds(run.record)[kind] for run in (one, other)]
    if values[0] != values[1]:
        raise MixedRunsError(
            f"{one.path} and {other.path} were made with different {kind} ({' and '.join(values)}) and must not be "
            "compared as one; run the older one again, delete its folder if it is no longer wanted, or show them as "
            "separate rows with --allow-mixed"
        )


def _separated(runs: Sequence[Run]) -> list[Run]:
    """Rename runs of a method that differ in some of KINDS, after those."""
    values: dict[tuple[str, str], dict[str, set[str]]] = {}
    for run in runs:
        seen = values.setdefault((run.record.dataset, run.record.method), {kind: set() for kind in KINDS})
        for kind, value in kinds(run.record).items():
            seen[kind].add(value)
    separated = []
    for run in runs:
        seen = values[run.record.dataset, run.record.method]
        group = ", ".join(f"{kind} {value}" for kind, value in kinds(run.record).items() if len(seen[kind]) > 1)
        separated.append(replace(run, group=group))
    return separated
