"""What our runs measured, one figure per completed run, and comparisons of two methods over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.audit.judging import Reasons, Result, Thresholds, test_difference
from analysis.load import Run, Runs
from analysis.measured import PAPER_CUTOFFS, Measurements
from analysis.mmd_table import UNIT, MMDRun
from analysis.plan import Plan
from harness.metrics import per_user

HEADLINE = "kept"
# Nothing in these is drawn: one run is all there is, so they are constants and not samples.
DETERMINISTIC = ("floor.last", "floor.popularity", "floor.markov", "floor.knn")
NO_SPREAD = "no spread between runs"
MMD = "MMD "  # a metric "MMD cosine" is the distance in that view; lower is better


@dataclass(frozen=True)
class Contrast:
    """One comparison a claim needs: `ours` is to be better than `rival`. reading: which reading of the claim."""

    dataset: str
    metric: str
    ours: str
    rival: str
    reading: str = ""


class Samples:
    """Figures in percent (MMD in 1e-3) by dataset, method, protocol and metric; planned, completed runs only."""

    def __init__(self, runs: Runs, plan: Plan, thresholds: Thresholds, mmd: Sequence[MMDRun] = ()) -> None:
        self.runs, self.plan, self.thresholds, self._mmd = runs, plan, thresholds, list(mmd)
        self.measurements = Measurements(runs, plan)
        self._values: dict[tuple[str, str, str, str], dict[int, float]] = {}
        metrics = [f"{name}@{k}" for name in ("HR", "NDCG") for k in sorted({*plan.cutoffs, *PAPER_CUTOFFS})]
        for run in filter(self._is_planned, runs.runs):
            for key, rank_U in run.ranks.items():
                for metric in metrics:
                    where = (run.record.dataset, run.record.method, key.removeprefix("test_"), metric)
                    value = 100 * float(per_user(rank_U, metric).mean())
                    self._values.setdefault(where, {})[run.record.seed] = value

    def completed(self, dataset: str, method: str) -> list[Run]:
        return [run for run in self.runs.of(dataset, method, completed=True) if self._is_planned(run)]

    def by_seed(self, dataset: str, method: str, metric: str, protocol: str = HEADLINE) -> Mapping[int, float]:
        """Return the figure of every completed run under its seed."""
        if metric.startswith(MMD):
            view = metric.removeprefix(MMD)
            found = [run for run in self._mmd if (run.dataset, run.method) == (dataset, method)]
            seeds = self.plan.seeds(dataset, method)
            return {run.seed: run.value(view) / UNIT for run in found if run.seed in seeds}
        return self._values.get((dataset, method, protocol, metric), {})

    def state(self, dataset: str, method: str, metric: str = "") -> tuple[str, str]:
        """Why there are too few figures, e.g. ("sasrec on beauty", "diverged (2 of 5)")."""
        outcome, name = self.measurements.outcome(dataset, method), f"{method} on {dataset}"
        if not outcome.planned:
            return name, "not in the plan"
        completed = outcome.counts["completed"]
        if completed and metric.startswith(MMD):
            return name, f"MMD of {len(self.by_seed(dataset, method, metric))} of {completed} runs"
        if completed == outcome.planned:
            return name, f"{completed} run{'s' if completed > 1 else ''} planned"
        return name, outcome.note if completed else outcome.state

    def note(self, dataset: str, method: str) -> Reasons:
        """What became of planned runs that did not complete, and how many were cut off; empty if all is well."""
        number = sum(map(self.measurements.is_cut_off, self.completed(dataset, method)))
        cut_off = f"{number} ended by their limit of epochs" if number else ""
        notes = [note for note in (self.measurements.outcome(dataset, method).note, cut_off) if note]
        return ((f"{method} on {dataset}", "; ".join(notes)),) if notes else ()

    def is_paired(self, ours: str, rival: str) -> bool:
        """Say whether both sides are evaluations of the same weights, seed by seed."""
        planned = self.plan.methods()
        trained = [planned[method].weights_of or method for method in (ours, rival) if method in planned]
        return len(trained) == 2 and trained[0] == trained[1]

    def _is_planned(self, run: Run) -> bool:
        return run.record.seed in self.plan.seeds(run.record.dataset, run.record.method)


def compare(samples: Samples, contrast: Contrast) -> Result:
    """Compare two methods over runs. A positive difference favours the claim, whatever the metric."""
    dataset, metric, thresholds = contrast.dataset, contrast.metric, samples.thresholds
    ours, rival = (samples.by_seed(dataset, method, metric) for method in (contrast.ours, contrast.rival))
    unit = "x 1e-3" if metric.startswith(MMD) else "percentage points"
    blank = Result(f"{metric} on {dataset}, {contrast.ours} against {contrast.rival}", unit)
    note = samples.note(dataset, contrast.ours) + samples.note(dataset, contrast.rival)
    is_constant = contrast.rival in DETERMINISTIC and len(rival) > 0
    paired = samples.is_paired(contrast.ours, contrast.rival)
    if paired:
        seeds = sorted(set(ours) & set(rival))
        ours, rival = ({seed: side[seed] for seed in seeds} for side in (ours, rival))
    short = [
        samples.state(dataset, method, metric)
        for method, side, least in (
            (contrast.ours, ours, thresholds.least_seeds),
            (contrast.rival, rival, 1 if is_constant else thresholds.least_seeds),
        )
        if len(side) < least
    ]
    blank = replace(blank, runs=(len(ours), len(rival)), is_constant=is_constant)
    if short:
        return replace(blank, lacking=tuple(short))
    first, second = np.array(list(ours.values())), np.array(list(rival.values()))
    if is_constant:
        second, paired = np.full(len(first), second.mean()), True
    sign = -1.0 if metric.startswith(MMD) else 1.0
    found = test_difference(sign * first, sign * second, 1 - thresholds.alpha, paired=paired)
    if found is None:
        return replace(blank, lacking=((blank.name, NO_SPREAD),))
    difference = sign * float(first.mean() - second.mean())
    return replace(blank, difference=difference, low=found.low, high=found.high, p=found.p, note=note)
