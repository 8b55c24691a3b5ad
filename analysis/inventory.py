"""What ran, on what, how long, what failed and why: the rows behind every figure of the report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.deviations import deviation_in_words
from analysis.load import Run, Runs
from analysis.measured import WORDS
from analysis.plan import Plan

ENVIRONMENT_FIRST = ("device", "cpu", "python", "torch", "numpy", "cuda", "precision", "threads")


@dataclass(frozen=True)
class Entry:
    """One run as the inventory shows it; `key` is its anchor. Texts are ready to show, empty where unknown."""

    key: str
    dataset: str
    label: str
    seed: str
    status: str
    reason: str = ""
    deviation: str = ""  # settings that are not the plan's
    metrics: Mapping[str, str] | None = None
    epochs: str = ""
    train_time: str = ""
    eval_time: str = ""
    memory: str = ""
    device: str = ""
    versions: str = ""
    finished: str = ""
    digests: Mapping[str, str] | None = None  # what -> first eight digits
    path: str = ""
    command: str = ""
    settings: str = ""  # resolved settings as JSON, every default spelled out
    diagnostics: str = ""


@dataclass(frozen=True)
class Environment:
    """Machines and versions that some runs share."""

    values: Mapping[str, Any]
    num_runs: int
    example: str  # key of one such run


def list_entries(
    runs: Runs, plan: Plan, *, folder: Path, options: Sequence[str], made_elsewhere: bool = False
) -> list[Entry]:
    """Return the planned runs in order of the plan, then those outside it; a missing run is a row as well.

    options: of Snakemake, for the command that makes a run again.
    made_elsewhere: this configuration only reads the runs, so no command of it makes one again.
    """
    found = {run.key: run for run in runs.runs}
    problems = {problem.key: problem for problem in runs.problems}
    labels = plan.labels()
    entries = []
    for cell in plan.cells:
        command = "" if made_elsewhere else rerun_command(folder / cell.path / "record.json", options)
        identity = {"key": cell.path, "dataset": cell.dataset, "label": labels[cell.method], "seed": str(cell.seed)}
        if cell.path in found:
            run = found[cell.path]
            entries.append(_entry(run, labels[cell.method], command, deviation=deviation_in_words(run, plan)))
        elif cell.path in problems:
            problem = problems[cell.path]
            reason, path = problem.message, problem.path
            entries.append(Entry(**identity, status="unreadable", reason=reason, path=path, command=command))
        else:
            entries.append(Entry(**identity, status="not run", command=command))
    outside_reason = "not in the plan: left out of every table and figure"
    for run in runs.outside:
        entries.append(_entry(run, run.record.display, "", reason=outside_reason))
    for problem in runs.problems:
        if problem.key not in plan.paths:
            dataset, method, seed = problem.key.split("/")
            seed = seed.removeprefix("seed")
            entries.append(Entry(problem.key, dataset, method, seed, "unreadable", problem.message, path=problem.path))
    return entries


def _entry(run: Run, label: str, command: str, *, reason: str = "", deviation: str = "") -> Entry:
    record = run.record
    epochs = f"{record.best_epoch} of {record.epochs_run}" if record.best_epoch is not None else str(record.epochs_run)
    versions = [f"{name} {record.environment[name]}" for name in ("python", "torch") if record.environment.get(name)]
    return Entry(
        key=run.key,
        dataset=record.dataset,
        label=label + run.suffix,
        seed=str(record.seed),
        status=WORDS.get(record.status, record.status),
        reason="; ".join(part for part in (reason, record.reason) if part),
        deviation=deviation,
        metrics={name: f"{100 * v:.2f}" for name, v in record.metrics.get("test_kept", {}).items()},
        epochs=epochs,
        train_time=duration(record.train_seconds),
        eval_time=duration(record.eval_seconds),
        memory=size(record.peak_memory_bytes),
        device=str(record.environment.get("device", "")),
        versions=", ".join(versions),
        finished=record.finished,
        digests={
            "data": record.data_sha256[:8],
            "code": record.code_digest[:8],
            "settings": record.settings_sha256[:8],
            "ranks": (record.ranks_sha256 or "")[:8],
        },
        path=run.path,
        command=command,
        settings=json.dumps(record.settings, indent=1, sort_keys=True, ensure_ascii=False),
        diagnostics=", ".join(f"{name} {value:.4g}" for name, value in record.diagnostics.items()),
    )


def rerun_command(record: Path, options: Sequence[str]) -> str:
    """Return the one line that makes a cell again: its folder goes first, for what is finished is not trained twice."""
    parts = ["snakemake", "--cores", "2", *options, "--", str(record)]
    return f"rm -r {shlex.quote(str(Path(record).parent))} && {shlex.join(parts)}"


def list_environments(runs: Runs) -> Iterator[Environment]:
    """Yield the distinct environments, commonest first, the fields that matter most in front."""
    groups: dict[str, list[Run]] = {}
    for run in runs.runs:
        groups.setdefault(json.dumps(run.record.environment, sort_keys=True), []).append(run)
    for found in sorted(groups.values(), key=len, reverse=True):
        values = found[0].record.environment
        order = [name for name in ENVIRONMENT_FIRST if name in values]
        order += sorted(set(values) - set(order))
        yield Environment({name: values[name] for name in order}, len(found), found[0].key)


def duration(seconds: float) -> str:
    """Say a number of seconds as a reader would: "4.2 s", "12 min", "3 h 05 min"; nothing for none."""
    if not seconds:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: int) -> str:
    """Say a number of bytes in MiB or GiB; nothing for none."""
    if not num_bytes:
        return ""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"
