import numpy as np
import pytest
from scipy import stats

from analysis.audit import student
from analysis.resampling import sign_flip_floor


def pair(cell, ours=("0.31", "0.02"), rival=("0.34", "0.05"), n=5):
    a = student.sample_of(cell("MMD", ours[0], std=ours[1], n=n))
    b = student.sample_of(cell("MMD", rival[0], std=rival[1], n=n, model="Rival"))
    return a, b


def test_welch_equals_scipy(cell):
    a, b = pair(cell)
    expected = stats.ttest_ind_from_stats(a.mean, a.std, 5, b.mean, b.std, 5, equal_var=False).pvalue
    assert student.welch_p(a, b) == pytest.approx(expected)


def test_floors_lie_below_every_rounding_and_correlation(cell):
    a, b = pair(cell)
    rng = np.random.default_rng(0)
    welch_floor, paired_floor = student.smallest_welch_p(a, b), student.smallest_paired_p(a, b)
    pooled_floor = student.smallest_pooled_p(a, b)
    for _ in range(2000):
        means = rng.uniform((0.305, 0.335), (0.315, 0.345))
        stds = rng.uniform((0.015, 0.045), (0.025, 0.055))
        r = rng.uniform(-1, 1)
        t = (means[1] - means[0]) / np.sqrt((stds @ stds - 2 * r * stds[0] * stds[1]) / 5)
        assert student.two_sided_p(t, 4) >= paired_floor
        assert (
            stats.ttest_ind_from_stats(means[0], stds[0], 5, means[1], stds[1], 5, equal_var=False).pvalue
            >= welch_floor
        )
        assert stats.ttest_ind_from_stats(means[0], stds[0], 5, means[1], stds[1], 5).pvalue >= pooled_floor
    assert pooled_floor == pytest.approx(stats.ttest_ind_from_stats(0.305, 0.015, 5, 0.345, 0.045, 5).pvalue)
    # At the corner itself: difference 0.04, deviations 0.025 and 0.045, r = 1.
    assert paired_floor == pytest.approx(2 * stats.t.sf(0.04 / (0.02 / np.sqrt(5)), 4))


def test_deviations_that_may_be_equal_put_no_floor_under_a_paired_test(cell):
    assert student.smallest_paired_p(*pair(cell, ("0.35", "0.05"), ("0.42", "0.04"))) == 0


def test_samples_of_different_size_are_not_paired(cell):
    a, b = pair(cell)[0], pair(cell, n=6)[1]
    assert student.smallest_paired_p(a, b) is None


def test_correlation_needed_reproduces_the_p(cell):
    a, b = pair(cell, ("0.35", "0.05"), ("0.42", "0.04"))
    r = student.correlation_needed(a, b, 0.001)
    t = 0.07 / np.sqrt((0.05**2 + 0.04**2 - 2 * r * 0.05 * 0.04) / 5)
    assert student.two_sided_p(t, 4) == pytest.approx(0.001)


def test_runs_needed_is_the_first_that_suffices(cell):
    a, b = pair(cell)
    n = student.runs_needed(a, b, 0.001)

    def p(n):
        return stats.ttest_ind_from_stats(a.mean, a.std, n, b.mean, b.std, n, equal_var=False).pvalue

    assert p(n) < 0.001 <= p(n - 1)


def test_exact_tests_on_five_runs_have_a_floor():
    assert sign_flip_floor(5) == 0.0625
    a, b = np.arange(5.0), np.arange(5.0) + 10
    assert stats.wilcoxon(b - a + np.arange(5) / 9, method="exact").pvalue == pytest.approx(sign_flip_floor(5))
    assert stats.mannwhitneyu(a, b, method="exact").pvalue == pytest.approx(student.rank_sum_floor(5, 5))
