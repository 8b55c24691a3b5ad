"""Compare two methods on one dataset from their per-user gains, and say what each number covers.

A gain is any per-user quality, larger is better, as a fraction: HR@k or NDCG@k from the rank of the target.

What is paired. Users are: every run ranks the same users' targets, so differences are taken user by user.
Seeds are not: seed 3 of one method shares no draw that matters with seed 3 of another, so seed numbers are
labels. Intervals over seeds are therefore Welch's. The paired tests over seeds (sign flip, paired t) are
reported because papers use them; pairing independent runs by label is valid, only wasteful, and its result
depends on an arbitrary matching. The exception is a method that ranks another's weights again (another
number of corrections): its seed 3 is the other's seed 3, so there the pairs are real, intervals over seeds are of
paired differences, and tests of independent samples are left out.

What five seeds allow. The exact two-sided sign-flip test cannot go below 2/2^5 = 0.0625; exchanging labels
among all ten runs cannot go below 2/C(10,5) = 0.0079. Both floors travel with their p-values.

Two questions, two tests. `users_p` asks whether these trained models differ over users like these; the tests
over seeds ask whether training again would show it too. Neither answers the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.resampling import (
    percentile_interval,
    relabel_floor,
    relabel_p,
    resampled_user_means,
    sign_flip_floor,
    sign_flip_p,
)
from analysis.significance import TTest, cohens_d_z, hedges_g, paired_t, satterthwaite_t, welch_t

Floats = NDArray[np.float64]

FEW_SEEDS = "one seed shows no spread between seeds"
NO_SPREAD = "all values are equal, so there is no spread to measure the difference against"
UNEQUAL = "the methods have different seeds, so their runs cannot be paired by label"
SAME_WEIGHTS = "both rank the same weights, so their runs are pairs and no independent samples"


@dataclass(frozen=True)
class Interval:
    """Interval of a difference, in percentage points."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Difference of a method and its rival; positive favours the method.

    Means and `difference` in percent and percentage points, `relative` in percent of the rival's mean.
    A value that the data cannot support is None, and `absent` says why under the field's name.
    """

    method: str
    rival: str
    num_seeds: tuple[int, int]
    num_users: int
    method_mean: float
    rival_mean: float
    difference: float
    relative: float | None
    over_seeds: Interval | None  # new trainings, these users: Welch t, or paired t where both rank the same weights
    over_users: Interval  # bootstrap: new users, these trained models
    over_both: Interval | None  # new trainings and new users, from both variances; see `_both_t`
    both_p: float | None  # the test of that interval: below 0.05 exactly where it leaves zero out
    sign_flip_p: float | None
    sign_flip_floor: float | None
    paired_t_p: float | None
    relabel_p: float | None
    relabel_floor: float | None
    welch_p: float | None
    users_p: float | None  # paired t over users of seed-averaged gains
    seeds_effect: float | None  # Hedges' g between the seeds of the two methods
    users_effect: float | None  # Cohen's d_z over users of seed-averaged gains
    absent: Mapping[str, str] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Flatten into one row of a tidy table; intervals become `over_users_low`, `over_users_high`, ..."""
        row = asdict(self)
        row["method_seeds"], row["rival_seeds"] = row.pop("num_seeds")
        for name in ("over_seeds", "over_users", "over_both"):
            interval = row.pop(name)
            row[f"{name}_low"] = interval and interval["low"]
            row[f"{name}_high"] = interval and interval["high"]
        row["absent"] = "; ".join(f"{name}: {why}" for name, why in self.absent.items())
        return row


def compare_pairs(
    gain_by_method: Mapping[str, Floats],
    pairs: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    *,
    seeds: Mapping[str, Sequence[int]] | None = None,
    weights: Mapping[str, str] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare many pairs (method, rival) on one dataset and metric, drawing the resampled users only once.

    Shapes: each gain [S, U], rows seeds in label order, columns the same users in the same order; S may differ between
    methods, U may not.  Raises ValueError on NaN, empty input or different users.
    seeds: labels of each gain's rows, 0 to S - 1 by default; two methods are paired if they have the same.
    weights: whose weights each method ranks, its own by default; with the same, runs of one seed are pairs,
        and without a common seed there is no comparison.
    """
    weights = weights or {}
    used = list(dict.fromkeys(name for pair in pairs for name in pair))
    gains = {name: _checked(name, gain_by_method[name]) for name in used}
    if len({gain.shape[1] for gain in gains.values()}) > 1:
        shapes = {name: gain.shape[1] for name, gain in gains.items()}
        raise ValueError(f"numbers of users differ: {shapes}; compare runs on the same data only")
    drawn_RN = resampled_user_means(np.concatenate(list(gains.values())), rng, resamples)
    ends = np.cumsum([len(gain) for gain in gains.values()])[:-1]
    drawn = dict(zip(used, np.split(drawn_RN, ends, axis=1), strict=True))
    labels = {name: tuple(seeds[name] if seeds else range(len(gain))) for name, gain in gains.items()}
    found = []
    for names in pairs:
        same_weights = weights.get(names[0], names[0]) == weights.get(names[1], names[1])
        rows = _rows(labels[names[0]], labels[names[1]], same_weights)
        if not rows[0]:
            continue
        found.append(
            _compare(
                names,
                [gains[name][row] for name, row in zip(names, rows, strict=True)],
                [drawn[name][:, row] for name, row in zip(names, rows, strict=True)],
                rng=rng,
                level=level,
                has_pairs=same_weights or labels[names[0]] == labels[names[1]],
                same_weights=same_weights,
            )
        )
    return found


def _rows(first: Sequence[int], second: Sequence[int], same_weights: bool) -> tuple[list[int], list[int]]:
    """Rows of both that are compared: all, but of the same weights only the seeds that both have, in one order."""
    if not same_weights:
        return list(range(len(first))), list(range(len(second)))
    both = [seed for seed in first if seed in second]
    return [first.index(seed) for seed in both], [second.index(seed) for seed in both]


def _compare(
    names, gains, drawn, *, rng: np.random.Generator, level: float, has_pairs: bool, same_weights: bool
) -> Comparison:
    (method_SU, rival_SU), (method_RS, rival_RS) = gains, drawn
    method_S, rival_S = method_SU.mean(axis=1), rival_SU.mean(axis=1)
    difference_U = method_SU.mean(axis=0) - rival_SU.mean(axis=0)
    difference, absent = float(method_S.mean() - rival_S.mean()), {}
    num_seeds = (len(method_S), len(rival_S))

    def kept(name: str, value, why: str):
        if value is None:
            absent[name] = why
        return value

    def interval(low: float, high: float) -> Interval:
        return Interval(100 * low, 100 * high)

    several = min(num_seeds) > 1
    paired = several and has_pairs
    seed_why = NO_SPREAD if several else FEW_SEEDS
    pair_why = (NO_SPREAD if paired else UNEQUAL) if several else FEW_SEEDS
    one_sample = paired and same_weights
    welch = None if one_sample else welch_t(method_S, rival_S, level)
    difference_S = method_S - rival_S if paired else None
    by_label = paired_t(difference_S, level, scale=float(np.abs(method_S).max())) if paired else None
    by_user = paired_t(difference_U, level)
    seeds_t = by_label if one_sample else welch
    welch_why = SAME_WEIGHTS if one_sample else seed_why
    over_both = both = None
    if several:
        both = _both_t([difference_S] if one_sample else [method_S, rival_S], difference_U, level)
        over_both = interval(*((both.low, both.high) if both else (difference, difference)))
    users_R = method_RS.mean(axis=1) - rival_RS.mean(axis=1)
    return Comparison(
        *names,
        num_seeds=num_seeds,
        num_users=method_SU.shape[1],
        method_mean=100 * float(method_S.mean()),
        rival_mean=100 * float(rival_S.mean()),
        difference=100 * difference,
        relative=kept("relative", _relative(difference, float(rival_S.mean())), "the rival's mean is zero"),
        over_seeds=kept("over_seeds", seeds_t and interval(seeds_t.low, seeds_t.high), seed_why),
        over_users=interval(*percentile_interval(users_R, level)),
        over_both=kept("over_both", over_both, FEW_SEEDS),
        both_p=kept("both_p", both and both.p, seed_why),
        sign_flip_p=kept("sign_flip_p", sign_flip_p(difference_S, rng) if paired else None, pair_why),
        sign_flip_floor=sign_flip_floor(num_seeds[0]) if paired else None,
        paired_t_p=kept("paired_t_p", by_label and by_label.p, pair_why),
        relabel_p=kept(
            "relabel_p",
            relabel_p(method_S, rival_S, rng) if several and not one_sample else None,
            SAME_WEIGHTS if one_sample else FEW_SEEDS,
        ),
        relabel_floor=relabel_floor(*num_seeds) if several and not one_sample else None,
        welch_p=kept("welch_p", welch and welch.p, welch_why),
        users_p=kept("users_p", by_user and by_user.p, NO_SPREAD),
        seeds_effect=kept("seeds_effect", hedges_g(method_S, rival_S), seed_why),
        users_effect=kept("users_effect", cohens_d_z(difference_U), NO_SPREAD),
        absent=absent,
    )


def _relative(difference: float, base: float) -> float | None:
    return 100 * difference / base if base else None


def _both_t(seed_samples: Sequence[Floats], difference_U: Floats, level: float) -> TTest | None:
    """Add the variances over seeds, of both methods or of their pairs, and over users (`satterthwaite_t`).

    No bootstrap of seeds and users: of S seeds it understates the variance by (S - 1) / S and knows no t quantile.
    These intervals count the seed-by-user interaction twice, erring on the wide side: where seeds dominate they
    covered 96 % of 400 simulated truths with five seeds. With fewer the fewest degrees of freedom count, and they cover
    more than they say.
    None where nothing varies.
    """
    parts = [(s.var(ddof=1) / len(s), len(s) - 1) for s in (*seed_samples, difference_U)]
    largest = max(variance for variance, _ in parts)
    if not largest:
        return None
    parts = [part for part in parts if part[0] > 1e-20 * largest]  # less is the rounding of equal values
    return satterthwaite_t(float(difference_U.mean()), parts, level)


def _checked(name: str, gain_SU: Floats) -> Floats:
    gain_SU = np.asarray(gain_SU, dtype=np.float64)
    if gain_SU.ndim != 2 or 0 in gain_SU.shape or gain_SU.shape[1] < 2:
        raise ValueError(f"gain of {name} has shape {gain_SU.shape}; expected [seeds, users], two users or more")
    if not np.isfinite(gain_SU).all():
        bad = int((~np.isfinite(gain_SU)).sum())
        raise ValueError(f"gain of {name} has {bad} values that are not finite; leave failed runs out")
    return gain_SU
