"""Comparisons of two methods: a case by hand, degenerate input, level, power and coverage by simulation."""

import json

import numpy as np
import pytest
from scipy import stats

from analysis.resampling import sign_flip_p
from analysis.statistics import compare_pairs


def simulated(rng, *, seeds=5, users=400, seed_sd=0.02, user_sd=0.2, noise=0.05, shift=0.0):
    """Draw gains of two methods that share users but not seeds."""
    user_U, taste_U = rng.normal(0, user_sd, users), rng.normal(0, user_sd / 4, users)
    method = rng.normal(0, seed_sd, (seeds, 1)) + user_U + taste_U + rng.normal(0, noise, (seeds, users)) + shift
    rival = rng.normal(0, seed_sd, (seeds, 1)) + user_U - taste_U + rng.normal(0, noise, (seeds, users))
    return method, rival


def compare(method_SU, rival_SU, rng, *, names=("method", "rival"), **how):
    return compare_pairs(dict(zip(names, (method_SU, rival_SU), strict=True)), [names], rng, **how)[0]


def test_two_seeds_and_two_users_by_hand():
    method, rival = np.array([[0.2, 0.4], [0.4, 0.6]]), np.array([[0.1, 0.3], [0.1, 0.3]])
    result = compare(method, rival, np.random.default_rng(0), names=("a", "b"))
    assert (result.method, result.rival, result.num_seeds, result.num_users) == ("a", "b", (2, 2), 2)
    assert result.method_mean == pytest.approx(40)
    assert result.rival_mean == pytest.approx(20)
    assert result.difference == pytest.approx(20)
    assert result.relative == pytest.approx(100)
    assert result.sign_flip_p == result.sign_flip_floor == 0.5
    # Seed means 0.3, 0.5 against 0.2, 0.2: of six splits in halves, {0.3, 0.5} and its mirror are extreme.
    assert result.relabel_p == pytest.approx(2 / 6)
    # After averaging over seeds every user differs by 0.2: no spread over users, so no test over them.
    assert result.users_p is None and "spread" in result.absent["users_p"]
    assert (result.over_users.low, result.over_users.high) == pytest.approx((20, 20))
    # Welch: seeds of b do not vary, so the interval is 20 +- t(1 df, 0.975) * 10.
    assert result.over_seeds.high == pytest.approx(20 + 12.7062 * 10, rel=1e-4)


def test_effects_by_hand_are_positive_where_the_method_is_better():
    result = compare(np.array([[0.2, 0.4], [0.4, 0.6]]), np.full((2, 2), 0.2), np.random.default_rng(0))
    # Seed means 0.3, 0.5 against 0.2, 0.2: pooled deviation 0.1, so d = 2; times 1 - 3 / (4 * 2 - 1).
    assert result.seeds_effect == pytest.approx(2 * 4 / 7)
    # Users differ by 0.1 and 0.3: mean 0.2, deviation 0.1 * sqrt(2).
    assert result.users_effect == pytest.approx(2**0.5)


def test_one_seed_gives_no_interval_over_seeds_and_says_why():
    method, rival = simulated(np.random.default_rng(0), seeds=1)
    result = compare(method, rival, np.random.default_rng(0))
    for name in (
        "over_seeds",
        "over_both",
        "sign_flip_p",
        "paired_t_p",
        "relabel_p",
        "welch_p",
        "both_p",
    ):
        assert getattr(result, name) is None
        assert "one seed" in result.absent[name]
    assert result.sign_flip_floor is None
    assert result.over_users.low < result.difference < result.over_users.high
    assert 0 < result.users_p < 1


def test_unequal_numbers_of_seeds_are_compared_without_pairing():
    method, rival = simulated(np.random.default_rng(0))
    result = compare(method, rival[:3], np.random.default_rng(0))
    assert result.num_seeds == (5, 3)
    assert result.sign_flip_p is None and "different seeds" in result.absent["sign_flip_p"]
    assert result.welch_p is not None and result.over_both is not None


def test_identical_methods_differ_by_nothing():
    method, _ = simulated(np.random.default_rng(0), seed_sd=0)
    method = np.repeat(method[:1], 5, axis=0)
    result = compare(method, method, np.random.default_rng(0))
    assert result.difference == 0
    assert result.sign_flip_p == result.relabel_p == 1.0
    assert result.welch_p is None and result.users_p is None and result.both_p is None
    assert (result.over_both.low, result.over_both.high) == (0, 0)


def test_where_seeds_do_not_vary_both_is_the_interval_over_users():
    method, rival = (np.repeat(gain[:1], 3, axis=0) for gain in simulated(np.random.default_rng(1)))
    result = compare(method, rival, np.random.default_rng(0))
    interval = stats.ttest_1samp(100 * (method[0] - rival[0]), 0).confidence_interval(0.95)
    assert (result.over_both.low, result.over_both.high) == pytest.approx((interval.low, interval.high))


def test_a_rival_that_never_hits_has_no_relative_difference():
    result = compare(np.full((2, 3), 0.5), np.zeros((2, 3)), np.random.default_rng(0))
    assert result.relative is None and "zero" in result.absent["relative"]


def test_same_generator_same_numbers_and_another_seed_others():
    method, rival = simulated(np.random.default_rng(0))
    first, again = (compare(method, rival, np.random.default_rng(7)) for _ in range(2))
    assert first == again
    assert first.over_users != compare(method, rival, np.random.default_rng(8)).over_users


def test_rows_are_flat_and_strict_json():
    row = compare(*simulated(np.random.default_rng(0), seeds=1), np.random.default_rng(7)).as_row()
    assert {"over_users_low", "over_both_high", "method_seeds", "absent"} <= set(row)
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_runs_are_paired_by_their_seeds_and_not_by_position():
    method, rival = simulated(np.random.default_rng(0))
    rows = list(range(len(method)))
    gains, pair, rng = {"a": method, "b": rival}, [("a", "b")], np.random.default_rng
    same, other = (
        compare_pairs(gains, pair, rng(0), seeds={"a": rows, "b": [row + shift for row in rows]})[0] for shift in (0, 1)
    )
    assert same.sign_flip_p is not None and same.paired_t_p is not None
    assert other.sign_flip_p is other.paired_t_p is None and "different seeds" in other.absent["paired_t_p"]
    assert other.welch_p == same.welch_p


def test_many_pairs_share_one_draw_of_users():
    method, rival = simulated(np.random.default_rng(0))
    gains = {"a": method, "b": rival, "c": rival - 0.01}
    against_b, against_c = compare_pairs(gains, [("a", "b"), ("a", "c")], np.random.default_rng(0))
    assert against_c.over_users.low == pytest.approx(against_b.over_users.low + 1)


@pytest.mark.parametrize(
    ("method", "rival", "message"),
    [
        (np.full((2, 3), np.nan), np.zeros((2, 3)), "not finite"),
        (np.zeros((2, 3)), np.zeros((2, 4)), "numbers of users differ"),
        (np.zeros(3), np.zeros(3), "shape"),
        (np.zeros((0, 3)), np.zeros((2, 3)), "shape"),
    ],
)
def test_bad_gains_are_refused(method, rival, message):
    with pytest.raises(ValueError, match=message):
        compare(method, rival, np.random.default_rng(0))


def test_level_and_coverage_when_nothing_differs():
    rng, repetitions = np.random.default_rng(11), 400
    results = [compare(*simulated(rng, user_sd=0.05), rng, resamples=300) for _ in range(repetitions)]

    def rejected(name):
        return np.mean([getattr(r, name) <= 0.05 for r in results])

    def covered(name):
        return np.mean([getattr(r, name).low <= 0 <= getattr(r, name).high for r in results])

    # Three binomial standard errors of 5 % over 400 repetitions are 3.3 points.
    assert rejected("welch_p") == pytest.approx(0.05, abs=0.033)
    assert rejected("paired_t_p") == pytest.approx(0.05, abs=0.033)
    assert rejected("relabel_p") == pytest.approx(12 / 252, abs=0.033)
    assert rejected("sign_flip_p") == 0  # the floor is 0.0625
    assert covered("over_seeds") == pytest.approx(0.95, abs=0.033)
    assert covered("over_both") > 0.92
    assert rejected("both_p") == pytest.approx(1 - covered("over_both"))  # one test, said in two ways
    # The other question: fixed models do differ, so users reject far more often than five percent.
    assert rejected("users_p") > 0.3


def test_users_test_keeps_its_level_when_models_do_not_vary():
    rng = np.random.default_rng(12)
    results = [compare(*simulated(rng, seed_sd=0.0, seeds=2), rng, resamples=300) for _ in range(400)]
    assert np.mean([r.users_p <= 0.05 for r in results]) == pytest.approx(0.05, abs=0.033)
    covered = np.mean([r.over_users.low <= 0 <= r.over_users.high for r in results])
    assert covered == pytest.approx(0.95, abs=0.033)


def test_the_t_test_over_users_matches_sign_flips_on_gains_that_are_mostly_zero():
    rng = np.random.default_rng(14)
    gain = np.where(rng.random((4, 2000)) < 0.05, 1 / np.log2(rng.integers(1, 11, (4, 2000)) + 1), 0)
    result = compare(gain[:2], gain[2:], rng)
    flipped = sign_flip_p((gain[:2] - gain[2:]).mean(axis=0), rng, flips=4000)
    assert result.users_p == pytest.approx(flipped, abs=0.03)


def test_a_planted_difference_is_found():
    rng = np.random.default_rng(13)
    results = [compare(*simulated(rng, shift=0.06), rng, resamples=100) for _ in range(60)]
    for name in ("welch_p", "relabel_p", "users_p", "both_p"):
        assert np.mean([getattr(r, name) <= 0.05 for r in results]) > 0.9
    assert np.mean([r.sign_flip_p == 0.0625 for r in results]) > 0.8
    assert np.mean([r.difference for r in results]) == pytest.approx(6, abs=0.6)


def test_runs_that_rank_the_same_weights_are_pairs_and_no_independent_samples():
    rng = np.random.default_rng(0)
    rival = rng.random((2, 400)) + np.array([[0.0], [0.3]])  # seeds far apart
    method = rival + 0.01 + rng.normal(0, 0.001, size=(2, 1))  # the same weights, ranked otherwise
    gains, pair = {"a": method, "b": rival}, [("a", "b")]
    (paired,) = compare_pairs(gains, pair, np.random.default_rng(0), weights={"a": "b"})
    (apart,) = compare_pairs(gains, pair, np.random.default_rng(0))
    assert paired.welch_p is None and paired.relabel_p is None and "same weights" in paired.absent["welch_p"]
    assert paired.over_seeds.high - paired.over_seeds.low < (apart.over_seeds.high - apart.over_seeds.low) / 20
    assert paired.over_both.high - paired.over_both.low < (apart.over_both.high - apart.over_both.low) / 20
    assert paired.difference == pytest.approx(apart.difference)
    more = {"a": method, "b": np.concatenate([rng.random((1, 400)), rival])}  # a seed that only one side has
    labels = {"a": [1, 2], "b": [7, 1, 2]}
    (common,) = compare_pairs(more, pair, np.random.default_rng(0), seeds=labels, weights={"a": "b"})
    assert common.num_seeds == (2, 2)
    assert (common.difference, common.over_seeds) == (paired.difference, paired.over_seeds)
    labels = {"a": [4, 5], "b": [7, 1, 2]}
    assert not compare_pairs(more, pair, np.random.default_rng(0), seeds=labels, weights={"a": "b"})


def test_rounding_of_equal_differences_is_no_variance_of_seeds():
    rival = np.random.default_rng(0).random((2, 400)) + np.array([[0.1], [0.3]])
    method = rival + np.random.default_rng(1).normal(0.01, 0.01, size=400)  # the same shift in both seeds
    (found,) = compare_pairs({"a": method, "b": rival}, [("a", "b")], np.random.default_rng(0), weights={"a": "b"})
    assert found.over_seeds is None and found.both_p == pytest.approx(found.users_p, rel=1e-6)
