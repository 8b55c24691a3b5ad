"""Maximum mean discrepancy between generated representations and target embeddings (Table 5).

Kernel: exp(-|x - y|^2 / (2 bandwidth^2)); the bandwidth is the median distance between pooled points, times a
multiplier in the sweep.

Why three views. Every model has its own embedding space, with its own units, axes and effective dimension.
With the median bandwidth the raw value ignores shift, rotation and overall scale, and nothing else: one
stretched axis sets the bandwidth and hides all the others, so raw values of two models differ even if both
generators are equally good. A fixed bandwidth shared by two models would not even ignore scale.
  raw           as exported. Comparable between runs that share one space, not between models.
  standardised  each dimension centred and scaled by pooled mean and deviation: undoes stretched axes.
  cosine        rows scaled to length one: undoes norms, which may carry popularity; what a model that ranks
                by direction uses.
Table 5 prints neither kernel, bandwidth, estimator nor normalisation, nor whether its values are squared. Its
claim (AlignDiff's generated representations lie nearer to the truth than the best rival's) is about two
models, hence about a view comparable between them: standardised or cosine. It is supported only if both agree.

What p means. Per run it asks whether generated and true points share a distribution, which no model's do, so
a small p is neither praise nor blame. The claim is about two models and needs the values of several seeds:
compare those with `analysis.significance.welch_t` and `analysis.resampling.relabel_p`.

Source: Gretton et al., A kernel two-sample test, JMLR 13 (2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.kernel_sums import BLOCK, KernelSums, kernel_sums

Floats = NDArray[np.floating]

VIEWS = ("raw", "standardised", "cosine")
MULTIPLIERS = (0.25, 0.5, 1.0, 2.0, 4.0)
TIE = 1e-7  # statistics that are no farther apart count as equal


@dataclass(frozen=True)
class MMDResult:
    """Squared MMD of one run under one bandwidth. Smaller is nearer; `unbiased` may be negative."""

    bandwidth: float
    biased: float
    unbiased: float
    p: float | None  # None if no relabellings were asked for
    permutations: int
    num_generated: int
    num_truth: int
    dim: int
    view: str = "raw"
    multiplier: float | None = None  # of the median bandwidth


def mmd_by_view(
    generated_UD: Floats,
    truth_UD: Floats,
    rng: np.random.Generator,
    *,
    views: Sequence[str] = VIEWS,
    multipliers: Sequence[float] = MULTIPLIERS,
    permutations: int = 200,
    max_users: int | None = None,
) -> list[MMDResult]:
    """Measure one run: every view under every multiple of its median bandwidth, on the same users.

    max_users: subsample so many users, the same rows of both arrays; None takes all.
    The sweep shows whether a conclusion hangs on the bandwidth; picking the smallest p from it is no test.
    """
    _check(generated_UD, truth_UD, paired=True)
    if max_users is not None and max_users < len(truth_UD):
        users = np.sort(rng.choice(len(truth_UD), max_users, replace=False))
        generated_UD, truth_UD = generated_UD[users], truth_UD[users]
    results = []
    for view in views:
        pair = view_of(generated_UD, truth_UD, view)
        median = median_bandwidth(*pair, rng)
        bandwidths = [multiplier * median for multiplier in multipliers]
        found = mmd_test(*pair, rng, bandwidths=bandwidths, permutations=permutations)
        results += [replace(r, view=view, multiplier=m) for r, m in zip(found, multipliers, strict=True)]
    return results


def mmd_test(
    generated_ND: Floats,
    truth_MD: Floats,
    rng: np.random.Generator,
    *,
    bandwidths: Sequence[float],
    permutations: int = 200,
    paired: bool = True,
    block: int = BLOCK,
) -> list[MMDResult]:
    """Estimate squared MMD per bandwidth, with permutation p = (1 + #{null >= observed}) / (1 + permutations).

    paired: row u of both samples belongs to user u. Relabelling then swaps within users, and the unbiased
    estimator leaves out k(generated_u, truth_u), because a good generator makes those two points dependent
    (the estimator of lemma 6's second half). Otherwise the samples are taken as independent: labels are
    shuffled over the pool and every pair counts.
    """
    _check(generated_ND, truth_MD, paired)
    n, m = len(generated_ND), len(truth_MD)
    pooled = np.concatenate([generated_ND, truth_MD]).astype(np.float64)
    pooled -= pooled.mean(axis=0)  # distances from norms lose fewer digits near the origin
    sign_PN = np.concatenate([np.ones(n), -np.ones(m)]).astype(np.float32)[None]
    if permutations:
        relabelled = _swapped(n, permutations, rng) if paired else _shuffled(sign_PN, permutations, rng)
        sign_PN = np.concatenate([sign_PN, relabelled])
    all_sums = kernel_sums(pooled.astype(np.float32), sign_PN, bandwidths, block=block)
    results = []
    for bandwidth, sums in zip(bandwidths, all_sums, strict=True):
        biased_P = sums.first / n**2 + sums.second / m**2 - 2 * sums.between / (n * m)
        result = MMDResult(
            bandwidth=float(bandwidth),
            biased=float(biased_P[0]),
            unbiased=_unbiased(sums, n, m, _kernel_of_pairs(pooled, bandwidth) if paired else None),
            p=_p_value(biased_P) if permutations else None,
            permutations=permutations,
            num_generated=n,
            num_truth=m,
            dim=pooled.shape[1],
        )
        results.append(result)
    return results


def view_of(generated: Floats, truth: Floats, view: str) -> tuple[Floats, Floats]:
    """Return both samples in the named view; a dimension or a row without extent stays at zero."""
    if view == "raw":
        return generated, truth
    if view == "standardised":
        pooled = np.concatenate([generated, truth]).astype(np.float64)
        mean, std = pooled.mean(axis=0), pooled.std(axis=0)
        std[np.ptp(pooled, axis=0) == 0] = 1
        return (generated - mean) / std, (truth - mean) / std
    if view == "cosine":
        return _unit_rows(generated), _unit_rows(truth)
    raise ValueError(f"view is {view!r}; legal values are {', '.join(VIEWS)}")


def median_bandwidth(generated: Floats, truth: Floats, rng: np.random.Generator, *, max_points: int = 4000) -> float:
    """Return the median distance between two different points of the pooled sample.

    A pool of more than `max_points` is subsampled without replacement.
    Raises ValueError if the median is zero.
    """
    pooled = np.concatenate([generated, truth]).astype(np.float64)
    if len(pooled) > max_points:
        pooled = pooled[rng.choice(len(pooled), max_points, replace=False)]
    pooled -= pooled.mean(axis=0)
    norms = (pooled**2).sum(axis=1)
    square = norms[:, None] + norms - 2 * pooled @ pooled.T
    median = float(np.sqrt(max(0.0, np.median(square[np.triu_indices(len(pooled), 1)]))))
    if median <= 1e-7 * np.sqrt(norms.max()):
        raise ValueError("the median distance is zero: most points coincide; give a bandwidth instead")
    return median


def _unbiased(sums: KernelSums, n: int, m: int, kernel_of_pairs: float | None) -> float:
    within = (sums.first[0] - n) / (n * (n - 1)) + (sums.second[0] - m) / (m * (m - 1))
    if kernel_of_pairs is None:
        return float(within - 2 * sums.between[0] / (n * m))
    return float(within - 2 * (sums.between[0] - kernel_of_pairs) / (n * (n - 1)))


def _kernel_of_pairs(pooled: Floats, bandwidth: float) -> float:
    first, second = np.split(pooled, 2)
    return float(np.exp(-((first - second) ** 2).sum(axis=1) / (2 * bandwidth**2)).sum())


def _p_value(statistic_P: NDArray[np.float64]) -> float:
    """Rank the first entry among the others; the slack makes relabellings equal on paper count as ties.

    Sums in single precision differ by some 2e-8 for 30 users, and by less for more.
    """
    observed, null = statistic_P[0], statistic_P[1:]
    return float((1 + (null >= observed - TIE).sum()) / (1 + len(null)))


def _swapped(num_users: int, permutations: int, rng: np.random.Generator) -> NDArray[np.float32]:
    sign_PU = 1 - 2 * rng.integers(0, 2, size=(permutations, num_users), dtype=np.int8)
    return np.concatenate([sign_PU, -sign_PU], axis=1).astype(np.float32)


def _shuffled(sign_1N: NDArray[np.float32], permutations: int, rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.permuted(np.repeat(sign_1N, permutations, axis=0), axis=1)


def _unit_rows(values: Floats) -> Floats:
    norms = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    return values / np.where(norms == 0, 1, norms)


def _check(generated: Floats, truth: Floats, paired: bool) -> None:
    for name, values in (("generated", generated), ("truth", truth)):
        if values.ndim != 2 or len(values) < 2:
            raise ValueError(f"{name} has shape {values.shape}; expected [points, dimensions], two points or more")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite; a diverged run has no representations")
    if generated.shape[1] != truth.shape[1]:
        raise ValueError(f"dimensions differ: {generated.shape[1]} generated, {truth.shape[1]} true")
    if paired and len(generated) != len(truth):
        raise ValueError(f"{len(generated)} generated rows, {len(truth)} true ones; pairs need one each per user")
