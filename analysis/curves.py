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
    parts = [pd.DataFrame(columns=list(COLUMNS))]
    for run in runs.runs:
        history = read_history(run) if run.key in planned and run.record.completed else ()
        if f"val_{metric}" not in history:
            continue
        display = labels[run.record.method] + run.method.removeprefix(run.record.method)
        part = history[["epoch", f"val_{metric}"]].dropna().set_axis(["epoch", "value"], axis=1)
        part = part.assign(dataset=run.record.dataset, method=display, seed=run.record.seed, value=100 * part["value"])
        parts.append(part[list(COLUMNS)])
    filled = [part for part in parts if len(part)]
    if not filled:
        return parts[0]
    order = {label: i for i, label in enumerate(labels.values())}
    places = lambda names: names.map(lambda name: order[name.partition(" [")[0]])  # noqa: E731
    return pd.concat(filled, ignore_index=True).sort_values("method", key=places, kind="stable", ignore_index=True)


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
