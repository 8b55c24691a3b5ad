"""Learning curves of all runs as one tidy table, from the history file beside each record."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.load import Run, Runs
from analysis.plan import Plan

COLUMNS = ("dataset", "method", "seed", "epoch", "value")


def read_curves(runs: Runs, plan: Plan, *, metric: str) -> pd.DataFrame:
    """Return validation values in percent, one row per validated epoch of a planned run.  Columns: COLUMNS.

    Methods carry their display names; points of sweeps, runs without a history (re-evaluations) and failed runs are
    left out. What a failed run did before it failed is in its history.csv.
    """
    labels, swept = plan.labels(), plan.swept()
    planned = {cell.path for cell in plan.cells if cell.method not in swept}
    column, parts = f"val_{metric}", []
    for run in runs.runs:
        if run.key not in planned or not run.record.completed:
            continue
        history = read_history(run)
        if column not in history or history[column].isna().all():
            continue
        part = history[["epoch", column]].dropna().set_axis(["epoch", "value"], axis=1)
        display = labels[run.record.method] + run.suffix
        part = part.assign(dataset=run.record.dataset, method=display, seed=run.record.seed, value=100 * part["value"])
        parts.append(part[list(COLUMNS)])
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    curves = pd.concat(parts, ignore_index=True)
    order = {label: place for place, label in enumerate(labels.values())}
    place = curves["method"].str.partition(" [")[0].map(order)
    return curves.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def read_history(run: Run) -> pd.DataFrame:
    """Read history.csv, empty if there is none.  Raises ValueError naming a damaged file."""
    path = Path(run.path).parent / "history.csv"
    if not path.is_file():
        return pd.DataFrame(columns=["epoch"])
    try:
        history = pd.read_csv(path)
        return history.assign(**{name: pd.to_numeric(history[name]) for name in history})
    except ValueError as error:
        raise ValueError(f"{path}: not a history ({error}); delete the run's folder and run again") from error
