"""Bootstrap and randomisation distributions, drawn from an explicit generator.

Every function takes plain arrays and returns plain arrays or one p-value; none knows what a method is.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXACT_LIMIT = 200_000  # distributions with more members than this are sampled instead of enumerated


def resampled_user_means(value_NU: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Draw the mean over users of every row, for one bootstrap sample of users per resample.

    All rows see the same users in one resample, so differences of rows keep their pairing by user.
    Users whose value is zero in every row cannot move a mean: how many of them are drawn is one binomial
    number, which is exact and leaves a fraction of the work when most users miss.

    Shapes: [N, U] -> [resamples, N].
    """
    num_users = value_NU.shape[1]
    active_AN = np.ascontiguousarray(value_NU[:, np.any(value_NU != 0, axis=0)].T)
    mean_RN = np.zeros((resamples, len(value_NU)))
    num_active = len(active_AN)
    if num_active == 0:
        return mean_RN
    hits_R = rng.binomial(num_users, num_active / num_users, size=resamples)
    block = max(1, 4_000_000 // num_active)  # keeps one block of counts near 32 MB
    for start in range(0, resamples, block):
        count_BA = np.stack(
            [
                np.bincount(rng.integers(0, num_active, hits), minlength=num_active)
                for hits in hits_R[start : start + block]
            ]
        )
        mean_RN[start : start + block] = count_BA.astype(np.float64) @ active_AN
    return mean_RN / num_users


def percentile_interval(draw_R: Floats, level: float) -> tuple[float, float]:
    """Return the central interval that holds the given share of the draws."""
    low, high = np.quantile(draw_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_floor(num_pairs: int) -> float:
    """Return the smallest two-sided p an exact sign-flip test of this many pairs can give: 2 / 2^n.

    Where the flips are sampled (more than EXACT_LIMIT), the p cannot go below 1 / (flips + 1) either.
    """
    return 2.0 ** (1 - num_pairs)


def sign_flip_p(difference_N: Floats, rng: np.random.Generator | None = None, flips: int = 9_999) -> float:
    """Test whether paired differences are symmetric about zero, two-sided, by flipping their signs.

    Exact when 2^n is at most EXACT_LIMIT; else `flips` random flips, p = (1 + extreme) / (1 + flips).
    Raises ValueError if sampling is needed and no generator was given.
    """
    n = len(difference_N)
    observed = abs(difference_N.sum())
    if 2**n <= EXACT_LIMIT:
        sign_FN = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(_as_extreme(np.abs(sign_FN @ difference_N), observed, difference_N).mean())
    rng = _require(rng, f"sign flips of {n} pairs")
    extreme = 0
    block = max(1, 8_000_000 // n)
    for start in range(0, flips, block):
        sign_BN = 1.0 - 2.0 * rng.integers(0, 2, size=(min(block, flips - start), n), dtype=np.int8)
        extreme += int(_as_extreme(np.abs(sign_BN @ difference_N), observed, difference_N).sum())
    return (1 + extreme) / (1 + flips)


def relabel_floor(num_first: int, num_second: int) -> float:
    """Return the smallest two-sided p of `relabel_p`: two splits of C(n + m, n), one if the sizes differ."""
    return (2 if num_first == num_second else 1) / comb(num_first + num_second, num_first)


def relabel_p(first_N: Floats, second_M: Floats, rng: np.random.Generator | None = None, draws: int = 9_999) -> float:
    """Test whether two unpaired samples share one distribution, two-sided, by exchanging their labels.

    The statistic is the difference of means. Exact when C(n + m, n) is at most EXACT_LIMIT, else sampled.
    """
    n, pooled = len(first_N), np.concatenate([first_N, second_M])
    centred = pooled - pooled.mean()  # the sum of one part then orders splits as the difference of means does
    observed = abs(centred[:n].sum())
    if comb(len(pooled), n) <= EXACT_LIMIT:
        part_C = np.array([centred[list(part)].sum() for part in combinations(range(len(pooled)), n)])
        return float(_as_extreme(np.abs(part_C), observed, centred).mean())
    rng = _require(rng, f"relabelling {len(pooled)} runs")
    part_D = rng.permuted(np.tile(centred, (draws, 1)), axis=1)[:, :n].sum(axis=1)
    return (1 + int(_as_extreme(np.abs(part_D), observed, centred).sum())) / (1 + draws)


def _as_extreme(statistic: Floats, observed: float, values: Floats) -> NDArray[np.bool_]:
    """Compare with room for rounding, so that sums equal on paper count as ties."""
    return statistic >= observed - 1e-12 * np.abs(values).sum()


def _require(rng: np.random.Generator | None, purpose: str) -> np.random.Generator:
    if rng is None:
        raise ValueError(f"rng is None, but {purpose} must be sampled; pass a numpy Generator")
    return rng
