"""Can a printed p-value come from the printed means, standard deviations and number of runs?

Welch: t = |m1 - m2| / sqrt(s1^2/n1 + s2^2/n2). Over all roundings t is largest for the widest difference and the
smallest deviations, and the degrees of freedom are largest where s1^2/n1 and s2^2/n2 are proportional to n1-1 and
n2-1; taking both at once bounds p from below.
Paired t on n runs: the deviation of the differences is sqrt(s1^2 + s2^2 - 2 r s1 s2), at least |s1 - s2| (r = 1),
so p is smallest at r = 1, the widest difference and the closest deviations; zero if the deviations can be equal.
Deviations are taken as sample deviations (divisor n - 1); with divisor n every p is larger.
One-sided p-values are half of these, and 'impossible' is said only if even the one-sided paired p is too large.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb, sqrt

from scipy.special import stdtr, stdtrit

from analysis.audit.cells import Cell, best_of, columns_of, table_name
from analysis.audit.finding import KINDS, Finding, Outcome
from analysis.audit.printed import EPSILON, Interval

MAX_RUNS = 100_000


@dataclass(frozen=True)
class Sample:
    """Mean, sample standard deviation and number of runs, as printed; the intervals hold their roundings."""

    mean: float
    std: float
    n: int
    means: Interval
    stds: Interval


def sample_of(cell: Cell) -> Sample | None:
    """The sample behind a cell; None unless its std and n are printed and n > 1."""
    if cell.std is None or cell.n is None or cell.n < 2:
        return None
    stds = Interval(max(cell.std.interval.lo, 0.0), cell.std.interval.hi)
    return Sample(cell.value, float(cell.std), cell.n, cell.interval, stds)


def two_sided_p(t: float, df: float) -> float:
    """Two-sided p of Student's t."""
    return float(2 * stdtr(df, -abs(t)))


def welch_df(a: float, b: float, df_a: int, df_b: int) -> float:
    """Welch-Satterthwaite degrees of freedom for a = s1^2/n1 and b = s2^2/n2."""
    return (a + b) ** 2 / (a**2 / df_a + b**2 / df_b)


def welch_p(ours: Sample, rival: Sample) -> float:
    """Two-sided Welch p at the printed values."""
    a, b = ours.std**2 / ours.n, rival.std**2 / rival.n
    if a + b == 0:
        return 0.0 if ours.mean != rival.mean else 1.0
    return two_sided_p((ours.mean - rival.mean) / sqrt(a + b), welch_df(a, b, ours.n - 1, rival.n - 1))


def smallest_welch_p(ours: Sample, rival: Sample) -> float:
    """Lower bound of the two-sided Welch p over all roundings."""
    a_low, b_low = ours.stds.lo**2 / ours.n, rival.stds.lo**2 / rival.n
    if a_low + b_low == 0:
        return 0.0
    t = _widest_difference(ours, rival) / sqrt(a_low + b_low)
    return two_sided_p(t, _largest_df(ours, rival))


def _largest_df(ours: Sample, rival: Sample) -> float:
    df_a, df_b = ours.n - 1, rival.n - 1
    a = Interval(ours.stds.lo**2 / ours.n, ours.stds.hi**2 / ours.n)
    b = Interval(rival.stds.lo**2 / rival.n, rival.stds.hi**2 / rival.n)
    lowest = a.lo / b.hi if b.hi else float("inf")
    highest = a.hi / b.lo if b.lo else float("inf")
    ratio = min(max(df_a / df_b, lowest), highest)  # the df are unimodal in a/b and peak at df_a/df_b
    return welch_df(ratio, 1.0, df_a, df_b) if ratio < float("inf") else df_a


def smallest_paired_p(ours: Sample, rival: Sample) -> float | None:
    """Smallest two-sided paired-t p over all roundings and correlations; None if the runs cannot be paired."""
    if ours.n != rival.n:
        return None
    closest = max(0.0, ours.stds.lo - rival.stds.hi, rival.stds.lo - ours.stds.hi)
    difference = _widest_difference(ours, rival)
    if difference == 0:
        return 1.0
    if closest <= EPSILON:
        return 0.0
    return two_sided_p(difference / (closest / sqrt(ours.n)), ours.n - 1)


def _widest_difference(ours: Sample, rival: Sample) -> float:
    gap = ours.means - rival.means
    return max(abs(gap.lo), abs(gap.hi))


def correlation_needed(ours: Sample, rival: Sample, p: float) -> float | None:
    """Smallest correlation of paired runs at which the PRINTED figures give a two-sided p; None if none does."""
    difference, n = abs(ours.mean - rival.mean), ours.n
    if ours.n != rival.n or ours.std * rival.std == 0 or p <= 0:
        return None
    t = -float(stdtrit(n - 1, p / 2))
    variance = n * (difference / t) ** 2
    r = (ours.std**2 + rival.std**2 - variance) / (2 * ours.std * rival.std)
    return max(-1.0, r) if r <= 1 else None


def runs_needed(ours: Sample, rival: Sample, alpha: float) -> int | None:
    """Runs per model at which Welch p falls below alpha if means and deviations stay as printed."""
    if ours.mean == rival.mean:
        return None
    low, high = 1, 2
    while welch_p(_with_runs(ours, high), _with_runs(rival, high)) >= alpha:
        low, high = high, 2 * high
        if high > MAX_RUNS:
            return None
    while high - low > 1:  # p falls with n at fixed means and deviations
        middle = (low + high) // 2
        enough = welch_p(_with_runs(ours, middle), _with_runs(rival, middle)) < alpha
        low, high = (low, middle) if enough else (middle, high)
    return high


def _with_runs(sample: Sample, n: int) -> Sample:
    return Sample(sample.mean, sample.std, n, sample.means, sample.stds)


def exact_floor(n: int) -> float:
    """Smallest two-sided p of an exact sign-flip or Wilcoxon signed-rank test on n pairs."""
    return 2 / 2**n


def rank_sum_floor(n1: int, n2: int) -> float:
    """Smallest two-sided p of an exact Wilcoxon rank-sum test."""
    return 2 / comb(n1 + n2, n1)


def check(cells: Iterable[Cell], claimed_below: float | None = None) -> Outcome:
    """Test every printed p against the best other model of its column.

    claimed_below: a caption's "p < ..."; tested instead of the printed digits, which are compared with it too.
    """
    findings, checked, held = [], 0, 0
    for column in columns_of(cells).values():
        for ours in column:
            rivals = [cell for cell in column if cell.model != ours.model]
            if ours.p is None or not rivals:
                continue
            tried = [
                _p_finding((ours, rival), (a, b), claimed_below)
                for rival in _best_rivals(rivals)
                if (a := sample_of(ours)) and (b := sample_of(rival))
            ]
            if not tried:
                continue
            finding = max(tried, key=lambda finding: KINDS.index(finding.kind))  # the mildest
            checked += 1
            held += not finding.is_alarm
            findings.append(finding)
    alarms = tuple(finding for finding in findings if finding.is_alarm)
    return Outcome(
        check="p_values",
        question="Can the printed p come from the printed means, deviations and runs?",
        checked=checked,
        held=held,
        findings=alarms,
        headline=_headline(alarms, checked),
    )


def _headline(alarms: tuple[Finding, ...], checked: int) -> str:
    if not alarms:
        return ""
    out_of_reach = [finding.dataset for finding in alarms if finding.kind == "impossible"]
    listed = ", ".join(f"{finding.dataset} {finding.evidence['welch_p']:.2g}" for finding in alarms)
    return (
        f"{len(alarms)} of {checked} printed p-values lie below every Welch p that the printed figures allow "
        f"(Welch: {listed})"
        + (f"; out of reach of a paired test too: {', '.join(out_of_reach)}." if out_of_reach else ".")
    )


def _best_rivals(rivals: list[Cell]) -> list[Cell]:
    """The best other model and any that rounding may have tied with it."""
    best = best_of(rivals)
    return [rival for rival in rivals if rival.interval.meets(best.interval)]


def _p_finding(cells: tuple[Cell, Cell], samples: tuple[Sample, Sample], claimed_below: float | None) -> Finding:
    ours, rival = cells
    assert ours.p is not None
    claimed = ours.p.interval.hi if claimed_below is None else claimed_below
    welch, welch_floor = welch_p(*samples), smallest_welch_p(*samples)
    paired_floor = smallest_paired_p(*samples)
    n = samples[0].n
    needed = runs_needed(*samples, alpha=claimed)
    correlation = correlation_needed(*samples, p=claimed)
    printed = f"p = {ours.p.text}" if claimed_below is None else f"p < {claimed_below:g}"
    printed = printed.replace("= <", "< ")
    kind, tail = _judge(claimed, welch_floor, paired_floor, n)
    return Finding(
        id=f"p_values/{ours.id}",
        check="p_values",
        kind=kind,
        claims=(f"p/{ours.id}",),
        dataset=ours.dataset,
        printed=printed,
        expected=f"Welch p = {welch:.2g}",
        evidence={
            "rival": rival.model,
            "n": n,
            "welch_p": welch,
            "smallest_welch_p": welch_floor,
            "smallest_paired_p": paired_floor,
            "correlation_needed": correlation,
            "runs_needed_for_welch": needed,
            "exact_paired_floor": exact_floor(n),
            "rank_sum_floor": rank_sum_floor(n, samples[1].n),
        },
        sentence=f"{table_name(ours)}, {ours.dataset} {ours.metric}, {ours.model} against {rival.model}, {n} runs: "
        f"printed {printed}; the printed means and deviations give Welch p = {welch:.2g}. {tail}"
        + (f" At that effect Welch p < {claimed:g} takes {needed} runs." if needed and needed > n else ""),
    )


def _judge(claimed: float, welch_floor: float, paired_floor: float | None, n: int) -> tuple[str, str]:
    if claimed >= welch_floor:
        return "holds", ""
    if paired_floor is None and claimed < welch_floor / 2:
        return (
            "impossible",
            f"No rounding takes it below {welch_floor:.2g} two-sided, and unequal runs cannot be paired.",
        )
    if paired_floor is not None and claimed < paired_floor / 2:
        return (
            "impossible",
            "Even a paired t-test with perfectly correlated runs at the most favourable rounding gives p >= "
            f"{paired_floor:.2g}: with {n} runs the claim is out of reach.",
        )
    return (
        "unsupported",
        "No rounding brings a Welch test that low; only a paired test on closely correlated runs could.",
    )


def check_caption(cells: Iterable[Cell], claimed_below: float) -> Outcome:
    """Compare printed p digits with a caption that says p < `claimed_below`."""
    printed = [cell for cell in cells if cell.p is not None]
    above = [
        cell for cell in printed if cell.p is not None and not cell.p.is_upper_bound and float(cell.p) >= claimed_below
    ]
    findings = ()
    if above:
        p = above[0].p
        assert p is not None
        findings = (
            Finding(
                id=f"p_caption/T{above[0].table}",
                check="p_caption",
                kind="inconsistent",
                claims=("p-below-0.001",),
                printed=f"p = {p.text}",
                expected=f"p < {claimed_below:g}",
                evidence={
                    "cells": [cell.id for cell in above],
                    "rounded_from": [p.interval.lo, p.interval.hi],
                },
                sentence=f"{table_name(above[0])} prints p = {p.text} in {len(above)} of {len(printed)} rows; its "
                f"caption says p < {claimed_below:g}. A printed {p.text} stands for {p.interval.lo:g} to "
                f"{p.interval.hi:g}.",
            ),
        )
    return Outcome(
        "p_caption",
        "Do printed p-values agree with their caption?",
        len(printed),
        len(printed) - len(above),
        findings,
    )


def check_exact_floor(num_runs: int, claimed_below: float) -> Outcome:
    """Compare a claimed p with the smallest p that exact tests on so few runs can give at all."""
    floor = exact_floor(num_runs)
    rank_sum = rank_sum_floor(num_runs, num_runs)
    holds = claimed_below > min(floor, rank_sum)
    finding = Finding(
        id="exact_floor/paired",
        check="exact_floor",
        kind="holds" if holds else "context",
        claims=("significant-all", "p-below-0.001"),
        printed=f"p < {claimed_below:g}, {num_runs} runs",
        expected=f"p >= {floor:g} (sign-flip, Wilcoxon signed-rank), p >= {rank_sum:.4f} (rank-sum)",
        evidence={
            "runs": num_runs,
            "sign_flip_floor": floor,
            "wilcoxon_floor": floor,
            "rank_sum_floor": rank_sum,
        },
        sentence=f"With {num_runs} runs an exact two-sided sign-flip or Wilcoxon signed-rank test cannot go below "
        f"{floor:g} and a rank-sum test not below {rank_sum:.4f}; p < {claimed_below:g} needs a test that assumes a "
        "distribution.",
    )
    return Outcome("exact_floor", "Could an exact test on so few runs give the claimed p?", 1, int(holds), (finding,))
