"""Closed-form tests against hand arithmetic, scipy's and statsmodels' answers, and the paper's Table 5."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.significance import cohens_d_z, hedges_g, holm, paired_t, welch_t


def test_paired_t_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 3.4641 on two degrees of freedom.
    result = paired_t(np.array([1.0, 2.0, 3.0]))
    assert result.p == pytest.approx(2 * stats.t.sf(2 * 3**0.5, 2))
    assert result.high - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [1.0]])
def test_without_spread_there_is_no_t(values):
    assert paired_t(np.array(values)) is None
    assert cohens_d_z(np.array(values)) is None


def test_welch_by_hand():
    # Variances 1 and 4 over five each: t = -2 / sqrt(1), degrees 1 / (0.04/4 + 0.64/4) = 100/17.
    first, second = np.array([1.0, 1.0, 2.0, 3.0, 3.0]), np.array([2.0, 2.0, 4.0, 6.0, 6.0])
    result = welch_t(first, second)
    assert result.degrees == pytest.approx(100 / 17)
    assert result.p == pytest.approx(2 * stats.t.sf(2, 100 / 17))
    assert result.low < -2 < result.high


def test_with_few_values_on_a_side_the_fewest_degrees_count():
    first, second = np.array([1.0, 3.0]), np.array([2.0, 2.0, 4.0, 6.0, 6.0])
    result = welch_t(first, second)
    assert result.degrees == 1
    assert result.p == pytest.approx(2 * stats.t.sf(2 / (1 + 4 / 5) ** 0.5, 1))


@pytest.mark.parametrize("seeds", [(2, 2), (2, 5), (3, 5)])
def test_few_values_keep_the_level_far_out_whatever_the_spreads(seeds):
    rng, trials, level = np.random.default_rng(0), 2000, 0.01
    drawn = [(rng.normal(0, 3, seeds[0]), rng.normal(0, 1, seeds[1])) for _ in range(trials)]
    most = level * trials + 3 * (level * trials) ** 0.5
    assert sum(welch_t(*both).p < level for both in drawn) <= most
    if seeds == (2, 5):  # where Satterthwaite's own degrees of freedom would not do
        assert sum(stats.ttest_ind(*both, equal_var=False).pvalue < level for both in drawn) > most


def test_rounding_of_what_was_subtracted_is_no_spread():
    rival = np.array([0.1, 0.3])
    difference = (rival + 1e-5) - rival
    assert np.ptp(difference) > 0  # nothing but rounding
    assert paired_t(difference, scale=0.3) is None


def test_both_t_tests_agree_with_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=6), rng.normal(0.5, 3, size=9)
    for ours, theirs in [
        (welch_t(first, second, 0.9), stats.ttest_ind(first, second, equal_var=False)),
        (paired_t(first, 0.9), stats.ttest_1samp(first, 0)),
    ]:
        interval = theirs.confidence_interval(0.9)
        assert (ours.p, ours.low, ours.high) == pytest.approx((theirs.pvalue, interval.low, interval.high))


def test_welch_copes_with_one_constant_side_only():
    assert welch_t(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0])) is not None
    assert welch_t(np.array([1.0, 1.0]), np.array([5.0, 5.0])) is None
    assert welch_t(np.array([1.0]), np.array([5.0, 6.0])) is None


def test_effect_sizes_by_hand():
    assert cohens_d_z(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    # Pooled variance (2 + 8) / 4 = 2.5, d = -2 / sqrt(2.5), correction 1 - 3/15 = 0.8.
    assert hedges_g(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(-1.6 / 2.5**0.5)
    assert hedges_g(np.array([1.0]), np.array([2.0, 4.0])) is None


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, and 0.04 lifted to 0.06.
    result = holm([0.03, 0.01, 0.04])
    assert result.adjusted == pytest.approx((0.06, 0.03, 0.06))
    assert result.family_size == 3


def test_holm_agrees_with_statsmodels():
    p = np.random.default_rng(0).random(40) ** 3
    assert holm(list(p)).adjusted == pytest.approx(multipletests(p, method="holm")[1])


def test_missing_p_values_do_not_enlarge_the_family():
    result = holm([0.02, None, 0.5, float("nan")])
    assert result.family_size == 2
    assert result.adjusted == (0.04, None, 0.5, None)
    assert holm([]).family_size == 0


def test_a_p_value_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"p_values\[1\] = 1.5"):
        holm([0.1, 1.5])
