"""Can HR, NDCG and MRR of one row come from one ranking?

Each user has one relevant item at rank r. At cut-off k a user contributes 1 to HR, 1/log2(r+1) to NDCG and 1/r to
MRR if r <= k, and 0 otherwise. Take cut-offs a < b (a = 0 stands for nothing). Users with a < r <= b are a share
d = HR@b - HR@a >= 0 of all users, and each of them adds to NDCG@b - NDCG@a a gain between that of rank b and that
of rank a+1. Hence

    d / log2(b+1)  <=  NDCG@b - NDCG@a  <=  d / log2(a+2)          (d/b <= MRR@b - MRR@a <= d/(a+1))

Averages over users, batches (however weighted) or runs keep the bounds, since both sides are linear; so does
hiding seen items. The stretches between cut-offs use different users, so for HR and NDCG the stretches are
independent: their bounds together are also sufficient, up to rounding and whole counts.
Rounding: a stretch is flagged only if NO unrounded values within half a unit of the last printed decimal meet the
bounds. Rows that pass stretch by stretch can still fail for all stretches at once, because neighbouring stretches
share a rounded cell; `joint_feasible` settles that by a linear programme over the share of users at every rank.

Published rows can fail for innocent reasons: a best epoch chosen per metric, mixed sources, a differently defined
metric. The finding states what cannot be, not why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from analysis.audit.cells import Cell, Row, rows_of, split_metric, table_name
from analysis.audit.finding import Finding, Outcome
from analysis.audit.printed import EPSILON, Interval

GAINS: dict[str, Callable[[int], float]] = {
    "HR": lambda rank: 1.0,
    "NDCG": lambda rank: 1.0 / log2(rank + 1),
    "MRR": lambda rank: 1.0 / rank,
}


@dataclass(frozen=True)
class Stretch:
    """The growth of a metric between two cut-offs, against what HR allows. Percent.

    found: difference of the printed values; reachable: that difference before rounding;
    allowed: bounds at the printed HR; widest: bounds over every unrounded HR.
    """

    metric: str
    low: int
    high: int
    found: float
    reachable: Interval
    allowed: Interval
    widest: Interval

    @property
    def is_possible(self) -> bool:
        return self.reachable.meets(self.widest)

    def as_dict(self) -> dict[str, object]:
        return {
            "metric": self.metric,
            "from": self.low,
            "to": self.high,
            "found": round(self.found, 6),
            "allowed": [round(self.allowed.lo, 4), round(self.allowed.hi, 4)],
        }


def stretches(row: Row) -> list[Stretch]:
    """List the growth of NDCG and MRR between the cut-offs at which HR is printed too, and of HR itself."""
    cells = {key: cell for metric, cell in row.items() if (key := split_metric(metric))}
    found = []
    for metric, gain in GAINS.items():
        cutoffs = sorted(k for name, k in cells if name == metric and ("HR", k) in cells)
        for low, high in zip([0, *cutoffs], cutoffs, strict=False):
            found.append(_stretch(cells, metric, gain, (low, high)))
    return found


def _stretch(
    cells: dict[tuple[str, int], Cell], metric: str, gain: Callable[[int], float], cutoffs: tuple[int, int]
) -> Stretch:
    low, high = cutoffs
    value, interval = _growth(cells, metric, cutoffs)
    if metric == "HR":  # users can only be added, and never more than all of them
        limit = Interval(0.0, 100.0)
        return Stretch(metric, low, high, value, interval, limit, limit)
    share, share_interval = _growth(cells, "HR", cutoffs)
    weakest, strongest = gain(high), gain(low + 1)
    return Stretch(
        metric=metric,
        low=low,
        high=high,
        found=value,
        reachable=interval,
        allowed=Interval(share * weakest, share * strongest),
        widest=Interval(max(share_interval.lo, 0.0) * weakest, share_interval.hi * strongest),
    )


def _growth(cells: dict[tuple[str, int], Cell], metric: str, cutoffs: tuple[int, int]) -> tuple[float, Interval]:
    low, high = cutoffs
    end = cells[metric, high]
    if low == 0:
        return end.value, end.interval
    start = cells[metric, low]
    return float(end.printed.value - start.printed.value), end.interval - start.interval


def joint_feasible(row: Row) -> bool:
    """Tell whether some distribution of ranks meets every rounding interval of the row at once."""
    from scipy.optimize import linprog  # heavy, and needed for few rows

    known = [(key, cell.interval) for metric, cell in row.items() if (key := split_metric(metric))]
    ranks = range(1, max(k for (_, k), _ in known) + 1)
    gain_MR: NDArray[np.float64] = np.array(
        [[GAINS[name](rank) if rank <= k else 0.0 for rank in ranks] for (name, k), _ in known]
    )
    low_M = np.array([interval.lo for _, interval in known]) - EPSILON
    high_M = np.array([interval.hi for _, interval in known]) + EPSILON
    rows = np.vstack([gain_MR, -gain_MR, np.ones((1, len(ranks)))])
    limits = np.concatenate([high_M, -low_M, [100.0 + EPSILON]])
    result = linprog(np.zeros(len(ranks)), A_ub=rows, b_ub=limits, bounds=(0, None), method="highs")
    return result.status != 2


def check(cells: list[Cell]) -> Outcome:
    """Flag every row whose printed metrics no single ranking can produce."""
    findings, checked = [], 0
    for row in rows_of(cells).values():
        if not any(split_metric(metric) for metric in row):
            continue
        checked += 1
        row_stretches = stretches(row)
        broken = [stretch for stretch in row_stretches if not stretch.is_possible]
        if broken:
            findings.append(_stretch_finding(row, broken))
        elif _needs_programme(row, row_stretches) and not joint_feasible(row):
            findings.append(_joint_finding(row))
    return Outcome(
        check="feasibility",
        question="Can the printed HR, NDCG and MRR of each row come from one ranking?",
        checked=checked,
        held=checked - len(findings),
        findings=tuple(findings),
        headline=_headline(findings, checked, _claimants(cells)),
    )


def _claimants(cells: list[Cell]) -> list[str]:
    """Models that a table claims something for, in order of appearance."""
    return list(dict.fromkeys(cell.model for cell in cells if cell.improvement is not None or cell.p is not None))


def _headline(findings: list[Finding], checked: int, claimants: list[str]) -> str:
    if not findings:
        return ""
    rows = ", ".join(f"{finding.dataset} {finding.evidence['model']}" for finding in findings)
    passing = [model for model in claimants if model not in {finding.evidence["model"] for finding in findings}]
    passed = f" Every row named {' or '.join(passing)} can." if passing else ""
    return f"{len(findings)} of {checked} rows cannot come from one ranking of one target per user: {rows}.{passed}"


def _needs_programme(row: Row, row_stretches: list[Stretch]) -> bool:
    """The bounds suffice if the printed values meet them and HR and NDCG share all cut-offs."""
    cutoffs = {name: {k for n, k in filter(None, map(split_metric, row)) if n == name} for name in GAINS}
    if cutoffs["MRR"] or cutoffs["HR"] != cutoffs["NDCG"]:
        return True
    return any(not (s.allowed.lo <= s.found <= s.allowed.hi) for s in row_stretches)


def _stretch_finding(row: Row, broken: list[Stretch]) -> Finding:
    cell = next(iter(row.values()))
    parts = [
        (f"{s.metric}@{s.high} - {s.metric}@{s.low}" if s.low else f"{s.metric}@{s.high}")
        + f" is {s.found:.4f}, outside [{s.allowed.lo:.4f}, {s.allowed.hi:.4f}]"
        for s in broken
    ]
    return Finding(
        id=f"feasibility/T{cell.table}/{cell.dataset}/{cell.model}",
        check="feasibility",
        kind="impossible",
        claims=tuple(cell.id for cell in row.values()),
        dataset=cell.dataset,
        printed="; ".join(f"{s.found:.4f}" for s in broken),
        expected="; ".join(f"[{s.allowed.lo:.4f}, {s.allowed.hi:.4f}]" for s in broken),
        evidence={"model": cell.model, "stretches": [s.as_dict() for s in broken]},
        sentence=f"{table_name(cell)}, {cell.dataset}, {cell.model}: {'; '.join(parts)}. No single ranking of "
        "one target per user gives these figures.",
    )


def _joint_finding(row: Row) -> Finding:
    cell = next(iter(row.values()))
    return Finding(
        id=f"feasibility/T{cell.table}/{cell.dataset}/{cell.model}",
        check="feasibility",
        kind="impossible",
        claims=tuple(cell.id for cell in row.values()),
        dataset=cell.dataset,
        printed=", ".join(f"{metric} {cell.printed.text}" for metric, cell in row.items()),
        expected="one distribution of ranks within every rounding interval",
        evidence={"model": cell.model, "stretches": [], "joint": True},
        sentence=f"{table_name(cell)}, {cell.dataset}, {cell.model}: each pair of cut-offs is possible by itself, "
        "but no single ranking of one target per user meets all printed figures at once, however they were rounded to "
        "the nearest digit.",
    )
