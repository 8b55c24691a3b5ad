"""Can a printed p-value come from the printed means, standard deviations and number of runs?

The bounds are those of `student.py`. An objection needs a p below every unpaired t-test, Welch's or Student's,
two-sided or one-sided (half of it). It is out of reach if even the one-sided paired t-test cannot give it. Never
'impossible': a test over users or samples, instead of runs, does not rest on these figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.audit.cells import Cell, best_of, columns_of, table_name
from analysis.audit.finding import KINDS, Finding, Kind, Outcome
from analysis.audit.student import (
    Sample,
    correlation_needed,
    rank_sum_floor,
    runs_needed,
    sample_of,
    smallest_paired_p,
    smallest_pooled_p,
    smallest_welch_p,
    welch_p,
)
from analysis.resampling import sign_flip_floor

PERMUTED = frozenset({"MMD"})  # metrics that have a permutation test over samples


def check(cells: Iterable[Cell], claimed_below: float | None = None, runs_from: str = "") -> Outcome:
    """Test every printed p against the best other model of its column.

    claimed_below: a caption's "p < ..."; tested instead of the printed digits, which are compared with it too.
    runs_from: where the number of runs is printed, if not beside the figures.
    """
    findings, checked, held = [], 0, 0
    for column in columns_of(cells).values():
        for ours in column:
            rivals = [cell for cell in column if cell.model != ours.model]
            if ours.p is None or not rivals:
                continue
            tried = [
                _p_finding((ours, rival), (a, b), claimed_below, runs_from)
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
    out_of_reach = [finding.dataset for finding in alarms if finding.evidence["out_of_reach"]]
    listed = ", ".join(f"{finding.dataset} {finding.evidence['welch_p']:.2g}" for finding in alarms)
    return (
        f"{len(alarms)} of {checked} printed p-values lie below what any unpaired t-test, one-sided or two-sided, can "
        f"give with the printed figures (Welch at their face value: {listed})"
        + (f"; out of reach of a paired t-test too: {', '.join(out_of_reach)}." if out_of_reach else ".")
        + (" A permutation test is not excluded." if any(f.evidence["has_permutation_test"] for f in alarms) else "")
    )


def _best_rivals(rivals: list[Cell]) -> list[Cell]:
    """The best other model and any that rounding may have tied with it."""
    best = best_of(rivals)
    return [rival for rival in rivals if rival.interval.meets(best.interval)]


def _p_finding(
    cells: tuple[Cell, Cell], samples: tuple[Sample, Sample], claimed_below: float | None, runs_from: str
) -> Finding:
    ours, rival = cells
    assert ours.p is not None
    claimed = ours.p.interval.hi if claimed_below is None else claimed_below
    welch, welch_floor, pooled_floor = welch_p(*samples), smallest_welch_p(*samples), smallest_pooled_p(*samples)
    paired_floor = smallest_paired_p(*samples)
    n = samples[0].n
    needed = runs_needed(*samples, alpha=claimed)
    correlation = correlation_needed(*samples, p=claimed)
    printed = f"p = {ours.p.text}" if claimed_below is None else f"p < {claimed_below:g}"
    printed = printed.replace("= <", "< ")
    kind, out_of_reach, tail = _judge(claimed, min(welch_floor, pooled_floor), paired_floor, n)
    has_permutation_test = ours.metric in PERMUTED
    if kind != "holds":
        other = f"A permutation test of {ours.metric} over samples" if has_permutation_test else "A test over users"
        tail += f" {other} does not rest on these figures and is not excluded."
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
            "assumes": "t-tests on means of n runs, deviations with divisor n - 1",
            "welch_p": welch,
            "smallest_welch_p": welch_floor,
            "smallest_pooled_p": pooled_floor,
            "smallest_paired_p": paired_floor,
            "correlation_needed": correlation,
            "runs_needed_for_welch": needed,
            "exact_paired_floor": sign_flip_floor(n),
            "rank_sum_floor": rank_sum_floor(n, samples[1].n),
            "out_of_reach": out_of_reach,
            "has_permutation_test": has_permutation_test,
        },
        sentence=f"{table_name(ours)}, {ours.dataset} {ours.metric}, {ours.model} against {rival.model}, {n} runs"
        f"{f' ({runs_from})' if runs_from else ''}: printed {printed}; the printed means and deviations give "
        f"Welch p = {welch:.2g}. {tail}"
        + (f" At that effect Welch p < {claimed:g} takes {needed} runs." if needed and needed > n else ""),
    )


def _judge(claimed: float, unpaired_floor: float, paired_floor: float | None, n: int) -> tuple[Kind, bool, str]:
    """Kind, whether no t-test over runs at all can give the claimed p, and why. Floors are two-sided."""
    if claimed >= unpaired_floor / 2:
        return "holds", False, ""
    if paired_floor is None:
        floor = f"{at_least(unpaired_floor / 2)} one-sided"
        return (
            "unsupported",
            True,
            f"No rounding takes an unpaired t-test below {floor}; unequal runs cannot be paired.",
        )
    if claimed < paired_floor / 2:
        said = (
            "Even a paired t-test with perfectly correlated runs at the most favourable rounding gives p >= "
            f"{at_least(paired_floor)}: with {n} runs the claim is out of reach of a t-test."
        )
        return "unsupported", True, said
    said = (
        f"No rounding takes an unpaired t-test below {at_least(unpaired_floor)} two-sided or half of that one-sided; "
        "only a paired test on closely correlated runs could."
    )
    return "unsupported", False, said


def at_least(p: float) -> str:
    """Two digits of a lower bound, rounded down, so that what is said of it stays true."""
    digits = 1 - math.floor(math.log10(p)) if p > 0 else 0
    return f"{math.floor(p * 10**digits) / 10**digits:.2g}"


def check_caption(cells: Iterable[Cell], claimed_below: float) -> Outcome:
    """Compare printed p digits with a caption that says p < `claimed_below`; alarm only if no rounding will do."""
    printed = [cell for cell in cells if cell.p is not None]
    above = [
        cell for cell in printed if cell.p is not None and not cell.p.is_upper_bound and float(cell.p) >= claimed_below
    ]
    wrong = [cell for cell in above if cell.p is not None and cell.p.interval.lo >= claimed_below]
    findings = ()
    if above:
        p = (wrong or above)[0].p
        assert p is not None
        findings = (
            Finding(
                id=f"p_caption/T{above[0].table}",
                check="p_caption",
                kind="inconsistent" if wrong else "context",
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
        len(printed) - len(wrong),
        findings,
    )


def check_exact_floor(num_runs: int, claimed_below: float) -> Outcome:
    """Compare a claimed p with the smallest p that exact tests on so few runs can give at all."""
    floor = sign_flip_floor(num_runs)
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
        f"{floor:g} and a rank-sum test not below {rank_sum:.4f}; p < {claimed_below:g} over runs needs a test that "
        "assumes a distribution.",
    )
    return Outcome("exact_floor", "Could an exact test on so few runs give the claimed p?", 1, int(holds), (finding,))
