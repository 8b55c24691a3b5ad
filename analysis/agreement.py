"""Do two sets of runs agree?  A cell run again from scratch, on another machine, or in another precision.

    python -m analysis.agreement results/reference/runs results/cpu/runs [--same] [--out agreement.json]

Cell by cell: for how many users the rank of the test target differs (seen items kept), what that does to a metric with
its standard error over users, and which digests or machines differ and may be the reason. Method by method, where both
sides have two seeds or more: both means, their spread over seeds, and Welch's interval of the difference. It is how far
the two may lie apart as far as these seeds can tell; with two seeds that is far. Seeds are not paired there: after many
epochs a rounding is like another seed.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.load import Run, kinds, load_runs
from analysis.significance import welch_t
from analysis.table_formats import pipe_table
from harness import cli
from harness.metrics import per_user
from harness.record import write_text_atomically

SAME, OTHER = "same ranks", "other ranks"
MACHINE = ("cpu", "device", "threads", "torch", "numpy", "float32_matmul_precision")
LEVEL = 0.95
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CellAgreement:
    """One cell in both sets.  Metrics in percent, difference (second - first) in percentage points."""

    key: str
    verdict: str  # SAME, OTHER, or why there is nothing to compare
    unlike: tuple[str, ...]  # "code", "settings", "precision" and the parts of the environment that differ
    users: int = 0
    users_differing: int = 0
    first: float | None = None
    second: float | None = None
    difference: float | None = None
    standard_error: float | None = None  # of the difference over users; what another training would give it cannot say


@dataclass(frozen=True)
class MethodAgreement:
    """One method on one dataset over its seeds.  Percent and percentage points; the interval is Welch's."""

    dataset: str
    method: str
    seeds: tuple[int, int]
    metric: str
    first: float
    first_std: float
    second: float
    second_std: float
    difference: float
    low: float
    high: float


def compare_cells(first: Iterable[Run], second: Iterable[Run], metric: str) -> list[CellAgreement]:
    """Every cell that both sets have, in the order of the first.  Raises ValueError if there is none."""
    others = {run.key: run for run in second}
    found = [compare(run, others[run.key], metric) for run in first if run.key in others]
    if not found:
        raise ValueError("the two folders have no cell in common; a cell is dataset/method/seed")
    return found


def compare(one: Run, other: Run, metric: str, ranks: str = "test_kept") -> CellAgreement:
    """Two runs on one dataset, user by user; the key is that of the first.  ranks: which of a run's rank files."""
    if not (one.record.completed and other.record.completed):
        return CellAgreement(one.key, f"{one.record.status} and {other.record.status}", _unlike(one, other))
    if one.record.data_sha256 != other.record.data_sha256:
        return CellAgreement(one.key, "other data", _unlike(one, other))
    same = all(np.array_equal(rank_U, other.ranks[name]) for name, rank_U in one.ranks.items())
    rank_U, other_U = one.ranks[ranks], other.ranks[ranks]
    gain_U = per_user(other_U, metric) - per_user(rank_U, metric)
    return CellAgreement(
        key=one.key,
        verdict=SAME if same else OTHER,
        unlike=_unlike(one, other),
        users=len(rank_U),
        users_differing=int((rank_U != other_U).sum()),
        first=100 * float(per_user(rank_U, metric).mean()),
        second=100 * float(per_user(other_U, metric).mean()),
        difference=100 * float(gain_U.mean()),
        standard_error=100 * float(gain_U.std(ddof=1)) / math.sqrt(len(gain_U)) if len(gain_U) > 1 else 0.0,
    )


def _unlike(one: Run, other: Run) -> tuple[str, ...]:
    ours, theirs = kinds(one.record), kinds(other.record)
    places = (one.record.environment, other.record.environment)
    found = [kind for kind in ours if ours[kind] != theirs[kind]]
    return (*found, *(key for key in MACHINE if places[0].get(key) != places[1].get(key)))


def compare_methods(first: Iterable[Run], second: Iterable[Run], metric: str) -> list[MethodAgreement]:
    """Every method with two completed seeds or more in both sets; runs that must not be averaged stay apart."""
    ours, theirs = _values(first, metric), _values(second, metric)
    both = [key for key in ours if min(len(ours[key]), len(theirs.get(key, ()))) >= 2]
    return [_over_seeds(key[0], key[2], ours[key], theirs[key], metric) for key in both]


def _values(runs: Iterable[Run], metric: str) -> dict[tuple[str, str, str], Floats]:
    """Percent, one value per seed, by dataset, digest of its data, and method."""
    completed = sorted((run for run in runs if run.record.completed), key=_sample)
    grouped = groupby(completed, key=_sample)
    return {
        key: np.array([100 * per_user(run.ranks["test_kept"], metric).mean() for run in each]) for key, each in grouped
    }


def _sample(run: Run) -> tuple[str, str, str]:
    return run.record.dataset, run.record.data_sha256, run.method


def _over_seeds(dataset: str, method: str, first: Floats, second: Floats, metric: str) -> MethodAgreement:
    difference = float(second.mean() - first.mean())
    test = welch_t(second, first, level=LEVEL)
    return MethodAgreement(
        dataset=dataset,
        method=method,
        seeds=(len(first), len(second)),
        metric=metric,
        first=float(first.mean()),
        first_std=float(first.std(ddof=1)),
        second=float(second.mean()),
        second_std=float(second.std(ddof=1)),
        difference=difference,
        low=float(test.low) if test else difference,  # no spread on either side: the difference is exact
        high=float(test.high) if test else difference,
    )


def machines(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Every kind of machine and precision that the runs of one side come from, each once."""
    named = ("precision", "emulated_products", *MACHINE)
    found = [{key: run.record.environment.get(key) for key in named} for run in runs]
    return [place for row, place in enumerate(found) if place not in found[:row]]


def as_markdown(cells: Sequence[CellAgreement], methods: Sequence[MethodAgreement], metric: str) -> str:
    """Both comparisons as pipe tables; the second is left out where no method has enough seeds."""
    sides, interval = (f"{metric}, first", "second"), f"difference [{LEVEL:.0%} interval]"
    head = ("cell", "verdict", "users whose rank differs", *sides, "difference (se of users)", "unlike")
    parts = [pipe_table(head, [_cell_line(cell) for cell in cells])]
    if methods:
        parts.append(pipe_table(("method", "seeds", *sides, interval), [_method_line(each) for each in methods]))
    return "\n\n".join(parts)


def _cell_line(cell: CellAgreement) -> tuple[str, ...]:
    unlike = ", ".join(cell.unlike) or "nothing"
    if cell.difference is None:
        return cell.key, cell.verdict, "", "", "", "", unlike
    share = f"{cell.users_differing:,} of {cell.users:,}"
    gap = f"{cell.difference:+.2f} ({cell.standard_error:.2f})"
    return cell.key, cell.verdict, share, f"{cell.first:.2f}", f"{cell.second:.2f}", gap, unlike


def _method_line(each: MethodAgreement) -> tuple[str, ...]:
    sides = f"{each.first:.2f} ± {each.first_std:.2f}", f"{each.second:.2f} ± {each.second_std:.2f}"
    gap = f"{each.difference:+.2f} [{each.low:+.2f}, {each.high:+.2f}]"
    return f"{each.method}, {each.dataset}", " / ".join(map(str, each.seeds)), *sides, gap


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.agreement", description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="folder of runs, such as results/reference/runs")
    parser.add_argument("second", type=Path, help="folder of runs to compare with it; only common cells count")
    parser.add_argument("--metric", default="NDCG@10", help="HR@k or NDCG@k of the test items, seen items kept")
    parser.add_argument("--same", action="store_true", help="exit with 1 unless every common cell has the same ranks")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    first, second = (load_runs(folder, allow_mixed=True).runs for folder in (options.first, options.second))
    cells = compare_cells(first, second, options.metric)
    methods = compare_methods(first, second, options.metric)
    print(as_markdown(cells, methods, options.metric))
    if options.out:
        found = {
            "command": f"python -m analysis.agreement {shlex.join(map(str, (options.first, options.second)))}",
            "metric": options.metric,
            "sides": [machines(runs) for runs in (first, second)],
            "cells": [asdict(cell) for cell in cells],
            "methods": [asdict(each) for each in methods],
        }
        write_text_atomically(options.out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return int(options.same and not all(cell.verdict == SAME for cell in cells))


if __name__ == "__main__":
    sys.exit(cli.run(main))
