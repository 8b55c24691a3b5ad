"""Which p-values can printed means, standard deviations and numbers of runs have?

Welch: t = |m1 - m2| / sqrt(s1^2/n1 + s2^2/n2). Over all roundings t is largest for the widest difference and the
smallest deviations, and the degrees of freedom are largest where s1^2/n1 and s2^2/n2 are proportional to n1-1 and
n2-1; taking both at once bounds p from below.
Student: t = |m1 - m2| / sqrt(s^2 (1/n1 + 1/n2)) with the pooled s^2 on n1 + n2 - 2 degrees of freedom, over all
roundings largest at the same corner. With equal n its t is Welch's and its p is the smaller one.
A one-sided p is half the two-sided.
Paired t on n runs: the deviation of the differences is sqrt(s1^2 + s2^2 - 2 r s1 s2), at least |s1 - s2| (r = 1),
so p is smallest at r = 1, the widest difference and the closest deviations; zero if the deviations can be equal.
Deviations are taken as sample deviations (divisor n - 1); with divisor n every p is larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt

from scipy.special import stdtr, stdtrit

from analysis.audit.cells import Cell
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


def smallest_pooled_p(ours: Sample, rival: Sample) -> float:
    """Smallest two-sided p of Student's t with pooled variance over all roundings."""
    df = ours.n + rival.n - 2
    pooled = ((ours.n - 1) * ours.stds.lo**2 + (rival.n - 1) * rival.stds.lo**2) / df
    if pooled == 0:
        return 0.0
    return two_sided_p(_widest_difference(ours, rival) / sqrt(pooled * (1 / ours.n + 1 / rival.n)), df)


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


def rank_sum_floor(n1: int, n2: int) -> float:
    """Smallest two-sided p of an exact Wilcoxon rank-sum test."""
    return 2 / comb(n1 + n2, n1)
