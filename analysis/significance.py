"""Closed-form tests, effect sizes and the correction for many comparisons.

A test that its data cannot support returns None, never NaN: NaN would slip through comparisons with 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
FEW = 4  # degrees of freedom: five values


@dataclass(frozen=True)
class TTest:
    """Two-sided t test of a difference, with the interval of the same test."""

    p: float
    low: float
    high: float
    degrees: float


@dataclass(frozen=True)
class HolmResult:
    """Adjusted p-values in the order given; None stays None and is not a member of the family."""

    adjusted: tuple[float | None, ...]
    family_size: int


def paired_t(difference_N: Floats, level: float = 0.95, *, scale: float = 0.0) -> TTest | None:
    """Test paired differences against zero; None with fewer than two pairs or without any spread.

    scale: size of the numbers that were subtracted, whose rounding is no spread of their differences.
    """
    if len(difference_N) < 2 or not _has_spread(difference_N, scale):
        return None
    error = difference_N.std(ddof=1) / np.sqrt(len(difference_N))
    return _t_test(difference_N.mean(), error, len(difference_N) - 1, level)


def welch_t(first_N: Floats, second_M: Floats, level: float = 0.95) -> TTest | None:
    """Test two unpaired means without assuming equal variances; None where the variances are unknown.

    That is: fewer than two values on either side, or no spread on both.
    """
    if min(len(first_N), len(second_M)) < 2 or not (_has_spread(first_N) or _has_spread(second_M)):
        return None
    parts = [(values.var(ddof=1) / len(values), len(values) - 1) for values in (first_N, second_M)]
    return satterthwaite_t(first_N.mean() - second_M.mean(), parts, level)


def satterthwaite_t(estimate: float, parts: Sequence[tuple[float, int]], level: float = 0.95) -> TTest:
    """Test an estimate whose variance is a sum of independent parts: pairs (variance, degrees of freedom).

    Source: Satterthwaite (1946); with two parts this is Welch's test. The sum must be positive. With a part of fewer
    than FEW degrees his formula is liberal, most of all far out, where a correction for many comparisons reads it (the
    tests show both). Then the smallest degrees of any part that varies count, which errs on the safe side.
    """
    variance = sum(v for v, _ in parts)
    fewest = min(d for v, d in parts if v > 0)
    degrees = variance**2 / sum(v**2 / d for v, d in parts) if fewest >= FEW else float(fewest)
    return _t_test(estimate, np.sqrt(variance), degrees, level)


def cohens_d_z(difference_N: Floats) -> float | None:
    """Return the mean paired difference in units of the standard deviation of those differences."""
    if len(difference_N) < 2 or not _has_spread(difference_N):
        return None
    return float(difference_N.mean() / difference_N.std(ddof=1))


def hedges_g(first_N: Floats, second_M: Floats) -> float | None:
    """Return the difference of two means in pooled standard deviations, corrected for small samples.

    Source: Hedges (1981): Cohen's d times 1 - 3 / (4 (n + m - 2) - 1).
    """
    degrees = len(first_N) + len(second_M) - 2
    if min(len(first_N), len(second_M)) < 2 or not (_has_spread(first_N) or _has_spread(second_M)):
        return None
    squares = ((first_N - first_N.mean()) ** 2).sum() + ((second_M - second_M.mean()) ** 2).sum()
    d = (first_N.mean() - second_M.mean()) / np.sqrt(squares / degrees)
    return float(d * (1 - 3 / (4 * degrees - 1)))


def holm(p_values: Sequence[float | None]) -> HolmResult:
    """Adjust a family of p-values so that the chance of any false rejection stays at the level.

    Source: Holm (1979), step-down. None and NaN are dropped before the family is counted; statsmodels'
    multipletests, the oracle of the tests, counts NaN members, which inflates every other p, and collects garbage at
    every call, which takes longer than all else. A family of size m over tests whose smallest reachable p is f cannot
    reject anything below m * f: compare before reading "not significant".

    Raises ValueError if a value lies outside [0, 1].
    """
    present = [i for i, p in enumerate(p_values) if p is not None and not np.isnan(p)]
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for position, i in enumerate(sorted(present, key=lambda i: p_values[i])):
        p = float(p_values[i])
        if not 0 <= p <= 1:
            raise ValueError(f"p_values[{i}] = {p} is not a probability; legal values lie in [0, 1]")
        running = max(running, (len(present) - position) * p)
        adjusted[i] = min(1.0, running)
    return HolmResult(tuple(adjusted), len(present))


def _t_test(estimate: float, error: float, degrees: float, level: float) -> TTest:
    half = stats.t.ppf((1 + level) / 2, degrees) * error
    p = 2 * stats.t.sf(abs(estimate) / error, degrees)
    return TTest(float(p), float(estimate - half), float(estimate + half), float(degrees))


def _has_spread(values: Floats, scale: float = 0.0) -> bool:
    """Tell real spread from rounding: equal numbers averaged differ in their last digits."""
    return bool(np.ptp(values) > 1e-12 * max(np.abs(values).max(), scale, 1e-300))
