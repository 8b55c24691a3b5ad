"""Verdicts from measured runs, by rules and thresholds that are fixed before the runs.

An ordering claim is a family of comparisons. It is `contradicted` by one comparison against it that survives Holm's
correction; it `holds` if all are in its favour and survive; otherwise the signs decide. Planned comparisons that
have not run stay members of the family with p = 1, so a corrected p never depends on which runs were left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from scipy import stats

from analysis.audit.finding import Status
from analysis.audit.printed import Interval
from analysis.significance import TTest, holm, paired_t, welch_t

# From the reading kindest to the claim to the least; a claim with several readings gets its kindest.
KINDNESS: tuple[Status, ...] = ("holds", "holds in direction only", "undecided", "not reproduced", "contradicted")

Reasons = tuple[tuple[str, str], ...]  # (what, why), such as ("sasrec on beauty", "diverged (2 of 5)")


@dataclass(frozen=True)
class Thresholds:
    """What a verdict needs. Written in the configuration before the runs.

    alpha: two-sided, after Holm's correction; intervals have level 1 - alpha.
    margin_percent: a printed figure is reproduced if the interval lies within this many percent of it.
    least_seeds: completed runs on each side of a comparison, never below 2.
    """

    alpha: float = 0.05
    margin_percent: float = 5.0
    least_seeds: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"threshold alpha={self.alpha}: must lie between 0 and 1, such as 0.05")
        if self.margin_percent <= 0:
            raise ValueError(f"threshold margin_percent={self.margin_percent}: must be above 0, such as 5")
        if self.least_seeds < 2 or self.least_seeds != int(self.least_seeds):
            raise ValueError(f"threshold least_seeds={self.least_seeds}: must be a whole number, 2 or more")

    @classmethod
    def parse(cls, pairs: Iterable[str]) -> Self:
        """Read "alpha=0.05".  Raises ValueError naming the pair."""
        values: dict[str, Any] = {}
        for pair in pairs:
            name, _, text = pair.partition("=")
            if name not in cls.__dataclass_fields__:
                legal = ", ".join(cls.__dataclass_fields__)
                raise ValueError(f"--thresholds {pair!r}: write NAME=NUMBER, names are {legal}")
            try:
                values[name] = int(text) if name == "least_seeds" else float(text)
            except ValueError:
                raise ValueError(f"--thresholds {pair!r}: {text!r} is not a number for {name}") from None
        return cls(**values)

    @property
    def text(self) -> str:
        return f"alpha {self.alpha:g}, margin {self.margin_percent:g}%, at least {self.least_seeds} runs a side"

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """One comparison: what it is called, how much better ours is, over how many runs.

    difference: positive favours the claim; in `unit`. None if it could not be measured, and `lacking` says why.
    note: planned runs behind the difference that did not complete.
    """

    name: str
    unit: str = "percentage points"
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    runs: tuple[int, int] = (0, 0)
    lacking: Reasons = ()
    note: Reasons = ()
    is_constant: bool = False  # the rival draws nothing, so its one run is no sample

    @property
    def seeds(self) -> int:
        """Runs behind the difference: the fewer of both sides."""
        return self.runs[0] if self.is_constant else min(self.runs)

    @property
    def is_measured(self) -> bool:
        return self.difference is not None

    @property
    def text(self) -> str:
        against = "a fixed figure" if self.is_constant else f"{self.runs[1]}"
        return (
            f"{self.name}: {self.difference:+.3f} {self.unit} [{self.low:.3f}, {self.high:.3f}], "
            f"corrected p {self.corrected:.2g}, {self.runs[0]} runs against {against}"
        )


@dataclass(frozen=True)
class Judgement:
    """A status, the sentence that says why, and the comparison that decided."""

    status: Status
    because: str
    decisive: Result | None = None


def test_difference(ours_N: Sequence[float], rival_M: Sequence[float], level: float, *, paired: bool) -> TTest | None:
    """Test a difference over runs; None where its data show no spread, unless there is no difference at all."""
    ours_N, rival_M = np.asarray(ours_N, dtype=float), np.asarray(rival_M, dtype=float)
    if paired:
        result = paired_t(ours_N - rival_M, level, scale=float(np.abs(ours_N).max()))
    else:
        result = welch_t(ours_N, rival_M, level)
    if result is None and (np.array_equal(ours_N, rival_M) if paired else ours_N.mean() == rival_M.mean()):
        return TTest(p=1.0, low=0.0, high=0.0, degrees=max(len(ours_N) - 1, 1))
    return result


test_difference.__test__ = False  # pytest collects functions that begin with "test"


def corrected(results: Sequence[Result]) -> list[Result]:
    """Adjust the p-values of one family; comparisons that were not run count as members."""
    adjusted = holm([1.0 if result.p is None else result.p for result in results]).adjusted
    return [
        replace(result, corrected=p) if result.p is not None else result
        for result, p in zip(results, adjusted, strict=True)
    ]


def judge_order(results: Sequence[Result], thresholds: Thresholds) -> Judgement:
    """Judge a claim that every difference of a corrected family is above zero."""
    measured = [result for result in results if result.is_measured]
    favourable = [result for result in measured if result.difference > 0]
    clear = [result for result in favourable if result.corrected < thresholds.alpha]
    against = [r for r in measured if r.difference < 0 and r.corrected < thresholds.alpha]
    counts = (
        f"{len(favourable)} of {len(measured)} measured comparisons are in the claimed order, {len(clear)} of them "
        "after correction."
    )
    lacking = lacking_text(results)
    if against:
        worst = min(against, key=lambda result: (result.corrected, result.p))
        return Judgement("contradicted", f"{counts} Against the claim: {worst.text}.{lacking}", worst)
    if not results:
        return Judgement("undecided", "The plan names nothing that tests it.")
    if not measured:
        return Judgement("undecided", f"None of its {len(results)} comparisons has enough runs.{lacking}")
    if len(measured) < len(results):
        said = f"{len(measured)} of {len(results)} comparisons have enough runs; {counts}{lacking}"
        return Judgement("undecided", said)
    if len(clear) == len(results):
        weakest = max(clear, key=lambda result: (result.corrected, result.p))
        return Judgement("holds", f"{counts} Weakest: {weakest.text}.", weakest)
    if len(favourable) == len(results):
        weakest = max(favourable, key=lambda result: (result.corrected, result.p))
        return Judgement("holds in direction only", f"{counts} Weakest: {weakest.text}.", weakest)
    worst = min(set(measured) - set(favourable), key=lambda result: (result.p, result.name))
    return Judgement("not reproduced", f"{counts} Not so: {worst.text}.", worst)


def lacking_text(results: Sequence[Result]) -> str:
    """Say which runs are missing or failed, shortly."""
    lacking = reasons_text(reason for result in results for reason in result.lacking)
    notes = reasons_text(reason for result in results for reason in result.note)
    return (f" Lacking: {lacking}." if lacking else "") + (f" Incomplete: {notes}." if notes else "")


def reasons_text(reasons: Iterable[tuple[str, str]], most: int = 3) -> str:
    """Say what has which reason, each reason once; empty without reasons."""
    whats: dict[str, list[str]] = {}
    for what, why in dict.fromkeys(reasons):
        whats.setdefault(why, []).append(what)
    parts = []
    for why, names in whats.items():
        more = f" and {len(names) - most} more" if len(names) > most else ""
        parts.append(f"{', '.join(names[:most])}{more} ({why})")
    left = f"; and {len(parts) - most} more reasons" if len(parts) > most else ""
    return "; ".join(parts[:most]) + left


def kindest(judgements: dict[str, Judgement]) -> Judgement:
    """Choose among the readings of a claim that the paper leaves open the one kindest to it."""
    reading = min(judgements, key=lambda name: KINDNESS.index(judgements[name].status))
    chosen = judgements[reading]
    if len(judgements) == 1:
        return chosen
    if len({judgement.status for judgement in judgements.values()}) == 1:
        return replace(chosen, because=f"The same in {len(judgements)} readings; as {reading}: {chosen.because}")
    others = "; ".join(f"{name}: {j.status}" for name, j in judgements.items() if name != reading)
    said = f"Read as {reading}, the kindest of {len(judgements)} readings ({others}): {chosen.because}"
    return replace(chosen, because=said)


def outside_margin_p(values_N: Sequence[float], printed: Interval, margin_percent: float) -> float | None:
    """Test that the mean lies within the margin of a printed figure; doubled one-sided t at the nearer bound."""
    values_N = np.asarray(values_N, dtype=float)
    if len(values_N) < 2 or np.ptp(values_N) == 0:
        return None
    bounds = widened(printed, margin_percent)
    error = values_N.std(ddof=1) / np.sqrt(len(values_N))
    beyond = max(values_N.mean() - bounds.hi, bounds.lo - values_N.mean())
    return float(min(1.0, 2 * stats.t.sf(beyond / error, len(values_N) - 1)))


def widened(printed: Interval, margin_percent: float) -> Interval:
    """The printed rounding interval with a margin in percent of it on both sides."""
    reach = margin_percent / 100
    return Interval(printed.lo - reach * abs(printed.lo), printed.hi + reach * abs(printed.hi))


def judge_cell(
    interval: Interval, mean: float, printed: Interval, corrected_p: float, thresholds: Thresholds
) -> Judgement:
    """Judge a printed figure by the interval of the measured mean."""
    bounds = widened(printed, thresholds.margin_percent)
    margin = f"{thresholds.margin_percent:g}% of the printed figure"
    if bounds.lo <= interval.lo and interval.hi <= bounds.hi:
        return Judgement("holds", f"The whole interval lies within {margin}.")
    if corrected_p < thresholds.alpha:
        return Judgement("contradicted", f"The measured mean lies more than {margin} away, after correction.")
    if not bounds.lo <= mean <= bounds.hi and not interval.meets(printed):
        return Judgement(
            "not reproduced", f"The mean lies more than {margin} away and the printed figure outside the interval."
        )
    return Judgement("undecided", f"The interval reaches beyond {margin} and too far to place the figure; more runs.")
