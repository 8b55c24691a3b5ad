"""Table 5: MMD between generated representations and targets, in three views because the paper names none.

The files are those of `analysis.mmd_run`; each must come from the run whose record lies among the runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.audit.paper_tables import Paper
from analysis.load import MixedRunsError, Runs
from analysis.measured import Cell, averaged, behind, marked
from analysis.mmd import MULTIPLIERS, VIEWS
from analysis.mmd_run import IDENTITY, SCHEMA
from analysis.plan import Plan
from analysis.significance import welch_t
from analysis.table_model import Block, Row, Table
from analysis.table_specs import CLAIMANT, datasets_under, group_of

RIVAL = "diffurec"  # the text names it as the paper's "SOTA" column
PRINTED_NAMES = {RIVAL: "DiffuRec", CLAIMANT: "AlignDiff"}
UNIT = 1e-3
CAPTION = (
    "Squared MMD (unbiased, median bandwidth) between generated representations and targets of test users, in units "
    "of 1e-3; smaller is nearer. The paper states neither kernel, estimator nor view. Raw values of two models lie in "
    "two spaces and are not comparable; standardised and cosine are the readings its claim could mean."
)
RUN_COLUMNS = {"bandwidth": ("bandwidth", 1), "unbiased": ("unbiased", UNIT), "biased": ("biased", UNIT), "p": ("p", 1)}
MIXED = "kNN mixing"
RUNS_CAPTION = (
    "Squared MMD in units of 1e-3 at the median bandwidth and at multiples of it; p of the permutation test that both "
    "samples have one distribution, smallest 1 / (relabellings + 1). kNN mixing, in the standardised view: how often a "
    "neighbour of a generated point is a target, 1 if both are perfectly mixed, 0 if they are apart. Each row is one "
    "file, mmd/{dataset}/{method}/seed{n}.json, which names the run that it measures."
)


@dataclass(frozen=True)
class MMDRun:
    """One run's file. results: one row per view and multiplier, columns as in `analysis.mmd.MMDResult`.

    mixing: the fields of `analysis.projection.Mixing`. cut_off: of the run, see `analysis.load.Run`.
    """

    dataset: str
    method: str
    seed: int
    path: str
    results: pd.DataFrame
    mixing: Mapping[str, float] = field(default_factory=dict)
    cut_off: bool = False

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.method}/seed{self.seed}"

    def at(self, view: str, multiplier: float = 1.0) -> pd.Series:
        rows = self.results[(self.results["view"] == view) & (self.results["multiplier"] == multiplier)]
        return rows.iloc[0]

    def value(self, view: str) -> float:
        return float(self.at(view)["unbiased"])


def read_folder(folder: Path | str, runs: Runs) -> list[MMDRun]:
    """Read {folder}/{dataset}/{method}/seed{seed}.json.  Raises ValueError on a damaged or foreign file."""
    behind = {run.key: run for run in runs.runs}
    found = []
    for path in sorted(Path(folder).glob("*/*/seed*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not values["results"]:  # the run did not complete
                continue
            results, mixing = pd.DataFrame(values["results"]), values["mixing"] or {}
            run = MMDRun(*(values[name] for name in IDENTITY[:3]), str(path), results, mixing)
            if values["schema"] != SCHEMA or any(pd.isna(run.value(view)) for view in VIEWS):
                raise ValueError(f"schema {values['schema']} or its values are not what this code reads")
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{path}: not an MMD file ({error}); delete it and run again") from error
        if run.key not in behind:  # left of a run that is gone
            continue
        stale = [name for name in IDENTITY if getattr(behind[run.key].record, name) != values[name]]
        if stale:
            raise MixedRunsError(
                f"{path}: measured on another run than the record of {run.key} ({stale[0]} differs); delete it and run "
                "again"
            )
        found.append(replace(run, cut_off=behind[run.key].cut_off))
    return found


def build(mmd: Sequence[MMDRun], paper: Paper, plan: Plan) -> Table:
    """Build Table 5; a dataset of the paper without files shows what is printed and that nothing was run."""
    printed = {(cell.dataset.lower(), cell.model): cell for cell in paper.table("5")}
    shown = {dataset for dataset, _ in printed} | {run.dataset for run in mmd}
    blocks = tuple(
        _block(mmd, printed, plan, dataset, display)
        for dataset, display in datasets_under(printed, paper, plan).items()
        if dataset in shown
    )
    return Table("table5", "Table 5. Distance of generated from true representations", CAPTION, "1e-3", blocks)


def build_runs(mmd: Sequence[MMDRun], plan: Plan) -> Table:
    """Build the table behind Table 5: bandwidth, both estimators, permutation p, sweep and mixing of every run."""
    columns = tuple(RUN_COLUMNS) + tuple(f"unbiased at {m:g} x bandwidth" for m in MULTIPLIERS if m != 1) + (MIXED,)
    blocks = []
    for dataset, display in plan.datasets.items():
        here = [run for run in mmd if run.dataset == dataset and run.seed in plan.seeds(dataset, run.method)]
        rows = tuple(_run_row(run, view, plan) for view in VIEWS for run in here)
        blocks += [Block(dataset, display, "", columns, rows)] if rows else []
    return Table("table5_runs", "Behind Table 5: every run and view", RUNS_CAPTION, "1e-3", tuple(blocks))


def _run_row(run: MMDRun, view: str, plan: Plan) -> Row:
    shared = {"n": 1, "cut_off": int(run.cut_off), "records": (run.path,), "runs": (run.key,), "decimals": 3}
    found = run.at(view)
    cells = [Cell(value=float(found[name]) / unit, **shared) for name, unit in list(RUN_COLUMNS.values())[:3]]
    has_p = found["p"] is not None and not pd.isna(found["p"])
    p = {"value": float(found["p"]), "is_p": True} if has_p else {"state": "not drawn"}
    cells.append(Cell(**(shared | p)))
    cells += [Cell(value=float(run.at(view, m)["unbiased"]) / UNIT, **shared) for m in MULTIPLIERS if m != 1]
    is_mixed = view == "standardised" and run.mixing
    cells.append(Cell(value=float(run.mixing["generated_ratio"]), **shared) if is_mixed else Cell(state="–"))
    return Row(f"{plan.labels()[run.method]}, seed {run.seed}, {view}", run.method, tuple(cells))


def _block(mmd: Sequence[MMDRun], printed, plan: Plan, dataset: str, display: str) -> Block:
    here = [run for run in mmd if run.dataset == dataset and run.seed in plan.seeds(dataset, run.method)]
    labels = dict(PRINTED_NAMES) | plan.labels()
    others = [m for m in dict.fromkeys(run.method for run in here) if m not in PRINTED_NAMES]
    rows: list[list[Cell]] = []
    for method in (*PRINTED_NAMES, *others):
        text = _printed(printed.get((dataset, PRINTED_NAMES.get(method))))
        runs = [run for run in here if run.method == method]
        rows.append([_cell(runs, view, text, len(plan.seeds(dataset, method))) for view in VIEWS])
    # Raw values lie in different spaces: nothing there is best.
    own = rows[: len(PRINTED_NAMES)]
    columns = [
        column if view == "raw" else marked(column, lower_is_better=True)
        for view, column in zip(VIEWS, map(list, zip(*own, strict=True)), strict=True)
    ]
    cells = list(zip(*columns, strict=True))
    derived = _claims(here, cells, printed.get((dataset, PRINTED_NAMES[CLAIMANT])))
    shown = tuple(Row(labels.get(m, m), m, row) for m, row in zip(PRINTED_NAMES, cells, strict=True))
    origins = {name: cell.variant_of for name, cell in plan.methods().items()}
    beside = tuple(
        Row(labels.get(m, m), m, tuple(row), group_of(m, origins.get(m), {*PRINTED_NAMES}))
        for m, row in zip(others, rows[len(PRINTED_NAMES) :], strict=True)
    )
    return Block(dataset, display, "", VIEWS, shown, derived, beside)


def _cell(runs: Sequence[MMDRun], view: str, text: str, planned: int) -> Cell:
    if not runs:
        return Cell(text, planned=planned)
    records, keys = tuple(run.path for run in runs), tuple(run.key for run in runs)
    note = f"{len(runs)} of {planned} seeds" if len(runs) < planned else ""
    cut_off = sum(run.cut_off for run in runs)
    blank = Cell(text, planned=planned, note=note, cut_off=cut_off, records=records, runs=keys, decimals=3)
    return averaged([run.value(view) / UNIT for run in runs], blank)


def _claims(here, cells, claimed) -> tuple[Row, ...]:
    """Two rows: the relative difference of the means, and Welch's test over seeds, which the claim is about."""
    by_method = dict(zip(PRINTED_NAMES, cells, strict=True))
    sides = list(zip(VIEWS, by_method[CLAIMANT], by_method[RIVAL], strict=True))
    gain, p = (claimed.improvement.text, claimed.p.text) if claimed else ("", "")
    gains = tuple(_gain(view, *pair, gain) for view, *pair in sides)
    tests = tuple(_difference_p(here, view, *pair, p) for view, *pair in sides)
    return Row("AlignDiff below DiffuRec, %", "", gains), Row("p of it (Welch, over seeds, uncorrected)", "", tests)


def _gain(view: str, ours: Cell, rival: Cell, printed: str) -> Cell:
    if view == "raw":
        return Cell(printed, state="not comparable")
    if ours.value is None or rival.value is None:
        return Cell(printed, state="not run")
    if rival.value <= 0:
        return Cell(printed, state="rival not above zero", **behind(ours, rival))
    value = 100 * (rival.value - ours.value) / rival.value
    return Cell(printed, value=value, decimals=1, **behind(ours, rival))


def _difference_p(here: Sequence[MMDRun], view: str, ours: Cell, rival: Cell, printed: str) -> Cell:
    if view == "raw":
        return Cell(printed, state="not comparable")
    if ours.value is None or rival.value is None:
        return Cell(printed, state="not run", decimals=4)
    values = [np.array([run.value(view) for run in here if run.method == method]) for method in (CLAIMANT, RIVAL)]
    test = welch_t(*values, 0.95) if min(map(len, values)) > 1 else None
    if test is None:
        return Cell(printed, state="needs two seeds each", **behind(ours, rival))
    return Cell(printed, value=test.p, decimals=4, is_p=True, **behind(ours, rival))


def _printed(cell) -> str:
    return f"{cell.printed.text} ± {cell.std.text}" if cell else ""
