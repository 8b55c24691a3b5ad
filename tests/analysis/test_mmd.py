"""Squared MMD against double sums and Gaussian closed forms; p-values against their promise; blocks against dense."""

import numpy as np
import pytest

from analysis.kernel_sums import kernel_sums
from analysis.mmd import VIEWS, median_bandwidth, mmd_by_view, mmd_test, view_of


def dense_kernel(first, second, bandwidth):
    square = ((first[:, None, :] - second[None, :, :]) ** 2).sum(axis=2)
    return np.exp(-square / (2 * bandwidth**2))


def gaussian_kernel_mean(mean_gap, variance_sum, dim, bandwidth):
    """E k(x, y) for x - y normal with this mean length and this variance in each of `dim` dimensions."""
    width = bandwidth**2 + variance_sum
    return (bandwidth**2 / width) ** (dim / 2) * np.exp(-(mean_gap**2) / (2 * width))


def test_two_points_a_side_by_hand():
    # x at 0 and 1, y at 0 and 2; k(d) = exp(-d^2 / 2).
    k1, k2 = np.exp(-0.5), np.exp(-2.0)
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    (result,) = mmd_test(x, y, np.random.default_rng(0), bandwidths=[1.0], permutations=0, paired=False)
    between = (1 + k2 + k1 + k1) / 4  # pairs (0,0), (0,2), (1,0), (1,2)
    assert result.biased == pytest.approx((2 + 2 * k1) / 4 + (2 + 2 * k2) / 4 - 2 * between, abs=1e-6)
    assert result.unbiased == pytest.approx(k1 + k2 - 2 * between, abs=1e-6)
    assert result.p is None
    (result,) = mmd_test(x, y, np.random.default_rng(0), bandwidths=[1.0], permutations=0)
    # Paired: only (user 0, user 1) and (user 1, user 0) remain between the samples.
    assert result.unbiased == pytest.approx(k1 + k2 - (k2 + k1), abs=1e-6)


def test_both_estimators_meet_the_closed_form_of_two_gaussians():
    rng, n, dim, bandwidth = np.random.default_rng(0), 400, 8, 3.0
    gap, deviation = 0.8, 1.4
    same = gaussian_kernel_mean(0, 2, dim, bandwidth), gaussian_kernel_mean(0, 2 * deviation**2, dim, bandwidth)
    expected = sum(same) - 2 * gaussian_kernel_mean(gap, 1 + deviation**2, dim, bandwidth)
    shift = np.full(dim, gap / dim**0.5)
    draws = [
        mmd_test(
            rng.normal(size=(n, dim)),
            shift + deviation * rng.normal(size=(n, dim)),
            rng,
            bandwidths=[bandwidth],
            permutations=0,
            paired=paired,
        )[0]
        for paired in (True, False) * 80
    ]
    unbiased = np.array([d.unbiased for d in draws])
    biased = np.array([d.biased for d in draws])
    error = 4 * unbiased.std() / len(draws) ** 0.5
    assert error < 0.05 * expected
    assert unbiased.mean() == pytest.approx(expected, abs=error)
    # The biased estimator exceeds the truth by the diagonal's surplus, (2 - E k(x, x') - E k(y, y')) / n.
    assert biased.mean() == pytest.approx(expected + (2 - sum(same)) / n, abs=error)


def test_paired_estimator_stays_unbiased_when_users_tie_the_samples_together():
    rng, n, dim, bandwidth = np.random.default_rng(1), 40, 3, 2.0
    paired, pooled = [], []
    for _ in range(300):
        user = rng.normal(size=(n, dim))
        x, y = (0.9 * user + 0.19**0.5 * rng.normal(size=(n, dim)) for _ in range(2))
        for found, flag in ((paired, True), (pooled, False)):
            found.append(mmd_test(x, y, rng, bandwidths=[bandwidth], permutations=0, paired=flag)[0].unbiased)
    assert abs(np.mean(paired)) < 4 * np.std(paired) / 300**0.5
    assert np.mean(pooled) < -0.01  # the two samples look nearer than equal


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_blocks_agree_with_the_dense_kernel(block):
    rng = np.random.default_rng(2)
    points = rng.normal(size=(90, 5))
    signs = np.where(rng.random((4, 90)) < 0.4, 1.0, -1.0)
    for sums, bandwidth in zip(kernel_sums(points, signs, [0.7, 2.0], block=block), [0.7, 2.0], strict=True):
        kernel = dense_kernel(points, points, bandwidth)
        for p, sign in enumerate(signs):
            up, down = sign > 0, sign < 0
            assert sums.first[p] == pytest.approx(kernel[np.ix_(up, up)].sum(), rel=1e-12)
            assert sums.second[p] == pytest.approx(kernel[np.ix_(down, down)].sum(), rel=1e-12)
            assert sums.between[p] == pytest.approx(kernel[np.ix_(up, down)].sum(), rel=1e-12)


def test_single_precision_blocks_are_good_to_a_millionth():
    rng = np.random.default_rng(3)
    x, y = 50 + rng.normal(size=(300, 64)), 50.1 + rng.normal(size=(200, 64))  # far from the origin on purpose
    bandwidth = median_bandwidth(x, y, rng)
    (result,) = mmd_test(x, y, rng, bandwidths=[bandwidth], permutations=0, paired=False)
    xx, yy, xy = (dense_kernel(a, b, bandwidth) for a, b in ((x, x), (y, y), (x, y)))
    assert result.biased == pytest.approx(xx.mean() + yy.mean() - 2 * xy.mean(), abs=1e-6)
    off = (xx.sum() - 300) / (300 * 299) + (yy.sum() - 200) / (200 * 199)
    assert result.unbiased == pytest.approx(off - 2 * xy.mean(), abs=1e-6)


@pytest.mark.parametrize("paired", [True, False])
def test_p_is_uniform_when_the_distributions_agree(paired):
    rng, repetitions = np.random.default_rng(4), 400
    p = np.array(
        [
            mmd_test(
                rng.normal(size=(30, 4)),
                rng.normal(size=(30 if paired else 20, 4)),
                rng,
                bandwidths=[2.0],
                permutations=99,
                paired=paired,
            )[0].p
            for _ in range(repetitions)
        ]
    )
    for level in (0.05, 0.25, 0.5, 0.75):
        error = 3 * (level * (1 - level) / repetitions) ** 0.5
        assert np.mean(p <= level) == pytest.approx(level, abs=error)


def test_swapping_within_users_keeps_the_level_when_samples_depend_and_shuffling_does_not():
    rng, rejected = np.random.default_rng(5), {True: 0, False: 0}
    for _ in range(300):
        user = rng.normal(size=(30, 3))
        x, y = (0.9 * user + 0.19**0.5 * rng.normal(size=(30, 3)) for _ in range(2))
        for paired in rejected:
            (result,) = mmd_test(x, y, rng, bandwidths=[2.0], permutations=59, paired=paired)
            rejected[paired] += result.p <= 0.1
    assert rejected[True] / 300 == pytest.approx(0.1, abs=0.052)
    assert rejected[False] == 0


@pytest.mark.parametrize("paired", [True, False])
def test_a_planted_shift_is_found(paired):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(300, 16)), rng.normal(0.15, 1, size=(300, 16))
    (result,) = mmd_test(x, y, rng, bandwidths=[median_bandwidth(x, y, rng)], permutations=199, paired=paired)
    assert result.p == 1 / 200
    assert result.unbiased > 0


def test_median_bandwidth_by_hand_and_its_invariances():
    rng = np.random.default_rng(7)
    # Points 0, 1, 3, 7: distances 1, 2, 3, 4, 6, 7 have the median 3.5 (of squares: (9 + 16) / 2).
    assert median_bandwidth(np.array([[0.0], [1.0]]), np.array([[3.0], [7.0]]), rng) == pytest.approx(12.5**0.5)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert median_bandwidth(5 * x @ turn + 1, 5 * y @ turn + 1, rng) == pytest.approx(5 * median_bandwidth(x, y, rng))


def test_subsampled_median_is_near_the_full_one_and_repeats():
    x, y = np.random.default_rng(8).normal(size=(2, 1500, 10))
    full = median_bandwidth(x, y, np.random.default_rng(0))
    few = [median_bandwidth(x, y, np.random.default_rng(0), max_points=500) for _ in range(2)]
    assert few[0] == few[1] == pytest.approx(full, rel=0.03)


def test_collapsed_points_have_no_median_bandwidth():
    with pytest.raises(ValueError, match="coincide"):
        median_bandwidth(np.ones((20, 2)), np.ones((20, 2)), np.random.default_rng(0))


def test_views_undo_what_they_say():
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(60, 4)), rng.normal(0.3, 1, size=(60, 4))
    stretch, scale = np.array([100.0, 1, 1, 1]), rng.uniform(0.5, 2, size=(60, 1))
    for a, b in zip(
        view_of(x, y, "standardised"), view_of(3 + x * stretch, 3 + y * stretch, "standardised"), strict=True
    ):
        assert np.allclose(a, b)
    for a, b in zip(view_of(x, y, "cosine"), view_of(x * scale, y * scale, "cosine"), strict=True):
        assert np.allclose(a, b)
    both = view_of(x, y, "standardised")
    assert np.allclose(np.concatenate(both).mean(0), 0) and np.allclose(np.concatenate(both).std(0), 1)
    assert (both[1].mean(0) - both[0].mean(0)).mean() > 0.2, "each on its own scale, nothing would be left to find"
    with pytest.raises(ValueError, match="'whitened'.*raw, standardised, cosine"):
        view_of(x, y, "whitened")


def test_raw_values_ignore_rotation_and_scale_but_not_a_stretched_axis():
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=(200, 6)), rng.normal(0.3, 1, size=(200, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]

    def raw(a, b):
        return mmd_by_view(a, b, np.random.default_rng(0), views=["raw"], multipliers=[1], permutations=0)[0].biased

    assert raw(7 * x @ turn, 7 * y @ turn) == pytest.approx(raw(x, y), rel=1e-4)
    stretch = np.array([30.0, 1, 1, 1, 1, 1])
    assert raw(x * stretch, y * stretch) < 0.7 * raw(x, y)


def test_a_constant_dimension_and_a_zero_row_are_harmless():
    x, y = np.random.default_rng(11).normal(size=(2, 30, 3))
    x[:, 0] = y[:, 0] = 0.1
    x[0] = 0
    for view in VIEWS:
        assert all(np.isfinite(part).all() for part in view_of(x, y, view))


def test_by_view_reports_the_sweep_and_repeats():
    x, y = np.random.default_rng(12).normal(size=(2, 120, 5))

    def measured(seed):
        return mmd_by_view(x, y, np.random.default_rng(seed), permutations=19, max_users=80)

    results = measured(0)
    assert [r.view for r in results] == [view for view in VIEWS for _ in range(5)]
    assert [r.multiplier for r in results[:5]] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert results[4].bandwidth == pytest.approx(16 * results[0].bandwidth)
    assert {r.num_truth for r in results} == {80}
    assert results == measured(0)
    assert results != measured(1)


def test_a_subsample_takes_the_same_users_of_both_sides():
    """Of a copy it is a copy; other users would be at a distance of about 0.01."""
    x = np.random.default_rng(13).normal(size=(120, 5))
    results = mmd_by_view(x, x.copy(), np.random.default_rng(0), permutations=0, max_users=80)
    assert [r.biased for r in results] == pytest.approx([0] * len(results), abs=1e-6)


@pytest.mark.parametrize("paired", [True, False])
def test_a_relabelling_that_changes_nothing_speaks_for_equality(paired):
    """Points that all coincide, so that every relabelling gives the same distance to the last digit."""
    points, rng = np.ones((30, 3)), np.random.default_rng(14)
    (result,) = mmd_test(points, points, rng, bandwidths=[1.0], permutations=19, paired=paired)
    assert (result.biased, result.p) == (0, 1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), "per user"),
        (np.zeros((3, 2)), np.zeros((3, 4)), "dimensions differ"),
        (np.full((3, 2), np.inf), np.zeros((3, 2)), "not finite"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "two points"),
    ],
)
def test_bad_samples_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        mmd_by_view(x, y, np.random.default_rng(0))
