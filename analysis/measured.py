"""One cell of a table: what was measured, over which runs, beside what is printed. Nothing is ever filled in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import Problem, Run, Runs
from analysis.plan import Plan

NOT_RUN = "not run"
CUT_OFF = "†"
CUT_OFF_MEANS = (
    f"{CUT_OFF} at least one run was ended by its limit of epochs, not by early stopping: it might have gone further."
)
PAPER_CUTOFFS = (5, 10, 20)  # the paper's tables have these whatever the plan adds
WORDS = {
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "unreadable": "unreadable",
    "missing": NOT_RUN,
    "elsewhere": "in another row",  # run with other code, settings or data, under allow_mixed
}


@dataclass(frozen=True)
class Cell:
    """One measured value beside the printed one; what is unknown is None or empty, never zero.

    value, std: mean and sample deviation (n - 1) over `n` runs, in the unit of the table; std needs two runs.
    state: shown instead of a value, e.g. "not run" or "diverged (2 of 5)". note: what is amiss beside a value.
    records: paths behind the value. runs: their keys, which are anchors in the report.
    """

    printed: str = ""
    value: float | None = None
    std: float | None = None
    n: int = 0
    planned: int = 0
    state: str = ""
    note: str = ""
    cut_off: int = 0  # of the runs, those that their limit of epochs ended before early stopping did
    mark: str = ""  # "best" or "second" among the measured of its column
    decimals: int = 2
    is_p: bool = False  # a probability is never shown as zero
    records: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The measured value as shown: mean ± deviation, with CUT_OFF if runs were, or why there is none."""
        if self.value is None:
            return self.state or NOT_RUN
        smallest = 10.0**-self.decimals
        if self.is_p and self.value < smallest:
            return f"< {smallest:.{self.decimals}f}"
        spread = "" if self.std is None else f" ± {self.std:.{self.decimals}f}"
        return f"{self.value:z.{self.decimals}f}{spread}{CUT_OFF if self.cut_off else ''}"


def behind(one: Cell, other: Cell) -> dict[str, Any]:
    """What a figure made of two cells rests on, as fields of its own cell."""
    return {
        "n": min(one.n, other.n),
        "cut_off": one.cut_off + other.cut_off,
        "records": one.records + other.records,
        "runs": one.runs + other.runs,
    }


@dataclass(frozen=True)
class Outcome:
    """What became of the runs planned for one method on one dataset."""

    planned: int
    counts: Counter[str]

    @property
    def state(self) -> str:
        """Why there is no value: the commonest failure and how many it met, "not run" if nothing was tried."""
        failed = Counter(
            {kind: n for kind, n in self.counts.items() if kind not in ("completed", "missing", "elsewhere")}
        )
        if not failed:
            return NOT_RUN
        return ", ".join(f"{WORDS[kind]} ({n} of {self.planned})" for kind, n in failed.most_common())

    @property
    def note(self) -> str:
        """What is amiss although there is a value, e.g. "3 of 5 seeds: 1 diverged, 1 not run"."""
        amiss = [f"{n} {WORDS[kind]}" for kind, n in self.counts.most_common() if kind != "completed" and n]
        return f"{self.counts['completed']} of {self.planned} seeds: {', '.join(amiss)}" if amiss else ""


class Measurements:
    """Look-up of cells by dataset, method, protocol and metric, restricted to what the plan asks for."""

    def __init__(self, runs: Runs, plan: Plan) -> None:
        self.runs, self.plan = runs, plan
        self._values: dict[tuple[str, str, str, str], pd.DataFrame] = {
            key: rows
            for key, rows in runs.table(sorted({*plan.cutoffs, *PAPER_CUTOFFS})).groupby(
                ["dataset", "method", "protocol", "metric"]
            )
        }
        self._problems: dict[str, Problem] = {problem.key: problem for problem in runs.problems}
        self._origins = {name: cell.weights_of or name for name, cell in plan.methods().items()}
        self._cut_off = {run.key for run in runs.runs if run.cut_off}

    def outcome(self, dataset: str, method: str) -> Outcome:
        """Count what became of the planned seeds of a method, under one of its names."""
        base = method.partition(" [")[0]
        seeds = self.plan.seeds(dataset, base)
        found = {run.record.seed: run.record.status for run in self.runs.of(dataset, method)}
        counts = Counter(found.get(seed) or self._absent(dataset, base, seed) for seed in seeds)
        return Outcome(len(seeds), counts)

    def cell(self, dataset: str, method: str, protocol: str, metric: str, printed: str = "") -> Cell:
        """Mean over the planned seeds that completed, in percent."""
        outcome = self.outcome(dataset, method)
        rows = self._values.get((dataset, method, protocol, metric))
        wanted = self.plan.seeds(dataset, method.partition(" [")[0])
        rows = rows if rows is None else rows[rows["seed"].isin(wanted)]
        if rows is None or rows.empty:
            return Cell(printed, planned=outcome.planned, state=outcome.state)
        behind = [run for run in self.runs.of(dataset, method, completed=True) if run.record.seed in wanted]
        return averaged(
            100 * rows["value"].to_numpy(),
            Cell(
                printed,
                planned=outcome.planned,
                note=outcome.note,
                cut_off=sum(map(self.is_cut_off, behind)),
                records=tuple(run.path for run in behind),
                runs=tuple(run.key for run in behind),
            ),
        )

    def is_cut_off(self, run: Run) -> bool:
        """Whether the training behind a run, its own or that of the weights it ranks again, was cut off."""
        origin = self._origins.get(run.record.method, run.record.method)
        return f"{run.record.dataset}/{origin}/seed{run.record.seed}" in self._cut_off

    def _absent(self, dataset: str, base: str, seed: int) -> str:
        names = self.runs.methods_of(dataset, base)
        if any(run.record.seed == seed for name in names for run in self.runs.of(dataset, name)):
            return "elsewhere"
        return "unreadable" if f"{dataset}/{base}/seed{seed}" in self._problems else "missing"


def averaged(values: Sequence[float] | np.ndarray, cell: Cell) -> Cell:
    """Fill a cell with mean and sample deviation of at least one value."""
    values = np.asarray(values, dtype=np.float64)
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return replace(cell, value=float(values.mean()), std=std, n=len(values))


def marked(cells: Sequence[Cell], *, lower_is_better: bool = False) -> list[Cell]:
    """Mark best and second of one column, ties alike; a single measured cell is not a competition.

    Cells are compared as they are measured, not as they are shown.
    """
    values = sorted({cell.value for cell in cells if cell.value is not None}, reverse=not lower_is_better)
    if sum(cell.value is not None for cell in cells) < 2:
        return list(cells)
    names = dict(zip(values, ("best", "second"), strict=False))
    return [replace(cell, mark=names.get(cell.value, "")) if cell.value is not None else cell for cell in cells]


def as_json(cell: Cell) -> dict[str, Any]:
    """The cell as JSON values, with its shown text."""
    values = {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
    return values | {"records": list(cell.records), "runs": list(cell.runs), "text": cell.text}
