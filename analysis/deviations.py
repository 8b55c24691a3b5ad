"""Runs that had other settings than their plan: finished under an earlier configuration, or made elsewhere.

Snakemake makes a run again when its settings change, unless it is told to look at dates only; runs that were committed
or copied are never made again. Their figures stand in the tables, so what differs is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from analysis.load import Run
from analysis.plan import Plan
from harness.deviation import deviation, in_words


def deviation_in_words(run: Run, plan: Plan) -> str:
    """What differs between a run's settings and the plan's; nothing for a run whose settings are not planned."""
    planned = plan.settings.get(run.record.dataset, {}).get(run.record.method, {})
    return in_words(deviation(run.record.settings, planned))


def grouped(runs: Iterable[Run], plan: Plan) -> list[tuple[str, list[Run]]]:
    """Return (what differs, the runs in which it does), for every run that had other settings, in order of runs."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if words := deviation_in_words(run, plan):
            found.setdefault(words, []).append(run)
    return list(found.items())


def named(runs: Iterable[Run], plan: Plan) -> str:
    """Return e.g. "AlignDiff (tuned) on Beauty (seeds 1, 2), SASRec on Toys (seed 1)"."""
    labels = plan.labels()
    parts = []
    for (dataset, method), group in groupby(runs, key=lambda run: (run.record.dataset, run.record.method)):
        seeds = [str(run.record.seed) for run in group]
        where = plan.datasets.get(dataset, dataset)
        parts.append(f"{labels.get(method, method)} on {where} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})")
    return ", ".join(parts)
