"""Bootstrap and randomisation tests: hand-counted cases, levels under the null, reproducibility."""

import numpy as np
import pytest
from scipy import stats

from analysis.resampling import (
    percentile_interval,
    relabel_floor,
    relabel_p,
    resampled_user_means,
    sign_flip_floor,
    sign_flip_p,
)


def test_five_agreeing_pairs_reach_the_floor_and_no_lower():
    assert sign_flip_floor(5) == 0.0625
    assert sign_flip_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == 0.0625


def test_sign_flip_counted_by_hand():
    # Sums of (+-1, +-2, +-3): 6, 4, 2, 0 and negatives. Observed 1 + 2 - 3 = 0: every flip is as extreme.
    assert sign_flip_p(np.array([1.0, 2.0, -3.0])) == 1.0
    # Observed -1 + 2 + 3 = 4: |sum| >= 4 for 6, 4, -4, -6 out of eight.
    assert sign_flip_p(np.array([-1.0, 2.0, 3.0])) == 0.5


def test_sign_flip_of_zeros_is_one():
    assert sign_flip_p(np.zeros(5)) == 1.0


def test_sums_equal_on_paper_count_as_ties():
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floating point; exactly, the observed sum is zero.
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1.0


def test_sampled_sign_flip_needs_a_generator_and_agrees_with_the_t_test():
    difference = np.random.default_rng(3).normal(0.1, 1, 200)
    with pytest.raises(ValueError, match="rng"):
        sign_flip_p(difference)
    p = sign_flip_p(difference, np.random.default_rng(0), flips=20_000)
    assert p == pytest.approx(stats.ttest_1samp(difference, 0).pvalue, rel=0.15)


def test_sign_flip_keeps_its_level_under_the_null():
    rng = np.random.default_rng(5)
    p = np.array([sign_flip_p(rng.normal(size=8)) for _ in range(2000)])
    # The largest multiple of 2/256 below 0.05 is 12/256; three standard errors are 0.014.
    assert np.mean(p <= 0.05) == pytest.approx(12 / 256, abs=0.014)


def test_relabel_counted_by_hand():
    # Pairs from {1, 2, 3, 4}: the observed split {1, 2} | {3, 4} and its mirror are the extremes of six.
    assert relabel_p(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == pytest.approx(2 / 6)
    assert relabel_floor(2, 2) == pytest.approx(2 / 6)
    assert relabel_floor(5, 5) == pytest.approx(2 / 252)
    assert relabel_floor(5, 4) == pytest.approx(1 / 126)


def test_relabel_agrees_with_scipy():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.8, 1, 5), rng.normal(0, 1, 4)
    # scipy's own two-sided p doubles the smaller tail; ours takes the absolute difference.
    reference = stats.permutation_test(
        (first, second), lambda a, b: abs(a.mean() - b.mean()), alternative="greater", n_resamples=np.inf
    )
    assert relabel_p(first, second) == pytest.approx(reference.pvalue)


def test_relabel_keeps_its_level_under_the_null():
    rng = np.random.default_rng(6)
    p = np.array([relabel_p(rng.normal(size=4), rng.normal(size=4)) for _ in range(1000)])
    assert np.mean(p <= 0.06) == pytest.approx(4 / 70, abs=0.022)  # 4/70 is the reachable level below 0.06


def test_many_runs_are_relabelled_by_sampling():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=15), rng.normal(1.0, 1, size=15)
    p = relabel_p(first, second, np.random.default_rng(0))
    assert p == pytest.approx(stats.ttest_ind(first, second).pvalue, rel=0.3)


def test_bootstrap_means_have_the_sampling_error_of_the_mean():
    value = np.where(np.random.default_rng(0).random((1, 3000)) < 0.1, 0.5, 0.0)
    drawn = resampled_user_means(value, np.random.default_rng(1), 4000)[:, 0]
    assert drawn.mean() == pytest.approx(value.mean(), abs=4 * drawn.std() / 4000**0.5)
    assert drawn.std() == pytest.approx(value.std() / 3000**0.5, rel=0.05)


def test_rows_see_the_same_users_in_a_resample():
    row = np.random.default_rng(0).random(500)
    drawn = resampled_user_means(np.stack([row, row + 0.25, 0 * row]), np.random.default_rng(1), 50)
    assert np.allclose(drawn[:, 1] - drawn[:, 0], 0.25)
    assert (drawn[:, 2] == 0).all()


def test_two_users_follow_the_binomial_law():
    drawn = resampled_user_means(np.array([[0.0, 1.0]]), np.random.default_rng(0), 20_000)[:, 0]
    share = [np.mean(drawn == v) for v in (0.0, 0.5, 1.0)]
    assert share == pytest.approx([0.25, 0.5, 0.25], abs=0.012)


def test_percentile_interval_of_a_ramp():
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
