"""AlignDiff against every other method of the plan, tested from per-user gains: `comparisons.csv`.

Fixed before looking: headline protocol (seen items stay), HR and NDCG at 10 (or the plan's first cut-off). A family
for Holm's correction is one metric over all datasets; baselines, AlignDiff's own variants, and variants of AlignDiff
(tuned), which are compared with that, are families of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.load import Run, Runs
from analysis.plan import Plan
from analysis.significance import holm
from analysis.statistics import compare_pairs
from analysis.table_specs import CLAIMANT, TUNED
from harness.metrics import per_user
from harness.record import write_text_atomically

PROTOCOL = "kept"
DRAW_SEED = 0
CORRECTED = ("welch_p", "users_p", "both_p")
FAMILIES = {
    "baselines": "Baselines, floors and the rest",
    "variants": "AlignDiff's own variants",
    "tuned variants": "AlignDiff (tuned) minus its own variants",
}
FILE = "comparisons.csv"
KEYS = ("dataset", "protocol", "metric", "family", "method", "rival")


def compare_runs(runs: Runs, plan: Plan, *, resamples: int = 2000) -> pd.DataFrame:
    """Return one row per dataset, metric and rival: the fields of `analysis.statistics.Comparison`, corrected p
    values with the size of their family (`welch_p_holm`, `welch_p_family`, ...) and the records behind it.

    Datasets whose runs saw different data are left out: nothing on them can be paired by user.
    """
    k = plan.headline_cutoff
    rows = [
        row
        for dataset in plan.datasets
        if dataset not in runs.mixed_data
        for metric in (f"HR@{k}", f"NDCG@{k}")
        for row in _compare_on(runs, plan, dataset=dataset, metric=metric, resamples=resamples)
    ]
    table = pd.DataFrame(rows, columns=None if rows else list(KEYS))
    for name in CORRECTED if rows else ():
        for _, family in table.groupby(["metric", "family"]):
            result = holm([None if pd.isna(p) else p for p in family[name]])
            table.loc[family.index, f"{name}_holm"] = [np.nan if p is None else p for p in result.adjusted]
            table.loc[family.index, f"{name}_family"] = result.family_size  # a p that the data cannot give is no member
    return table


def _compare_on(runs: Runs, plan: Plan, *, dataset: str, metric: str, resamples: int) -> Iterator[dict]:
    origins = {name: cell.variant_of for name, cell in plan.methods().items()}
    used = {
        name: found
        for base in origins
        if base not in plan.swept()
        for name in runs.methods_of(dataset, base)
        if (found := _planned(runs, plan, dataset, name))
    }
    methods = {name: found[0].record.method for name, found in used.items()}
    pairs = [(ours, rival) for ours in used for rival in used if methods[ours] == claimant_against(methods[rival])]
    if not pairs:
        return
    gains = {name: _gains(found, metric) for name, found in used.items()}
    rng = np.random.default_rng(DRAW_SEED)
    seeds = {name: [run.record.seed for run in found] for name, found in used.items()}
    weights = {name: plan.methods()[method].weights_of or method for name, method in methods.items()}
    for comparison in compare_pairs(gains, pairs, rng, seeds=seeds, weights=weights, resamples=resamples):
        rival = methods[comparison.rival]
        yield {
            "dataset": dataset,
            "protocol": PROTOCOL,
            "metric": metric,
            "family": family_of(rival, origins[rival]),
            "rival_display": _display(plan, comparison.rival, used),
            **comparison.as_row(),
            "records": "; ".join(run.path for run in used[comparison.method] + used[comparison.rival]),
            "runs": "; ".join(run.key for run in used[comparison.method] + used[comparison.rival]),
        }


def claimant_against(rival: str) -> str | None:
    """The method that is compared with a rival: AlignDiff, or AlignDiff (tuned) for the variants of that."""
    if rival == CLAIMANT:
        return None
    return TUNED if rival.startswith(f"{TUNED}.") else CLAIMANT


def family_of(rival: str, origin: str | None) -> str:
    """One of FAMILIES."""
    if claimant_against(rival) == TUNED:
        return "tuned variants"
    return "variants" if origin == CLAIMANT else "baselines"


def _planned(runs: Runs, plan: Plan, dataset: str, name: str) -> list[Run]:
    completed = [run for run in runs.of(dataset, name, completed=True) if f"test_{PROTOCOL}" in run.ranks]
    return [run for run in completed if run.record.seed in plan.seeds(dataset, run.record.method)]


def _gains(found: list[Run], metric: str) -> NDArray[np.float64]:
    return np.stack([per_user(run.ranks[f"test_{PROTOCOL}"], metric) for run in found])


def _display(plan: Plan, name: str, used: dict[str, list[Run]]) -> str:
    run = used[name][0]
    return plan.labels()[run.record.method] + run.suffix


def write(table: pd.DataFrame, folder: Path) -> Path:
    """Write comparisons.csv, headers only if nothing could be compared."""
    path = Path(folder) / FILE
    write_text_atomically(path, table.to_csv(index=False, lineterminator="\n"))
    return path


def read(folder: Path) -> pd.DataFrame:
    """Read comparisons.csv; an empty table if it is not there.  Raises ValueError naming a damaged file."""
    path = Path(folder) / FILE
    if not path.is_file():
        return pd.DataFrame(columns=list(KEYS))
    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of comparisons ({error}); make the tables again") from error
    missing = sorted(set(KEYS) - set(table.columns))
    if missing:
        raise ValueError(f"{path}: lacks columns {', '.join(missing)}; make the tables again")
    return table
