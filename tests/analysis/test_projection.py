"""Joint spaces, pictures and neighbour counts: hand-made clouds with known answers."""

import numpy as np
import pytest

from analysis.projection import (
    TRUTH,
    Space,
    clouds_of,
    joint_space,
    knn_mixing,
    project_pca,
    project_tsne,
    subsample,
)


def turned(points, seed):
    width = points.shape[1]
    return points @ np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def test_neighbours_counted_by_hand():
    # On a line: generated at 0 and 1.1, truth at 2 and 10.
    generated, truth = np.array([[0.0], [1.1]]), np.array([[2.0], [10.0]])
    mixing = knn_mixing(generated, truth, k=1)
    assert mixing.generated_share == 0.5  # 0 -> 1.1 generated; 1.1 -> 2 truth
    assert mixing.truth_share == 0.5  # 2 -> 1.1 generated; 10 -> 2 truth
    assert mixing.expected == pytest.approx(2 / 3)
    assert mixing.generated_ratio == pytest.approx(0.75)


def test_mixed_clouds_reach_the_expectation_and_separate_ones_zero():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 800, 6))
    mixed = knn_mixing(first, second)
    assert mixed.generated_ratio == pytest.approx(1, abs=0.05)
    assert mixed.truth_ratio == pytest.approx(1, abs=0.05)
    apart = knn_mixing(first, second + 100)
    assert apart.generated_share == apart.truth_share == 0


def test_unequal_clouds_have_their_own_expectations():
    rng = np.random.default_rng(1)
    mixing = knn_mixing(rng.normal(size=(300, 4)), rng.normal(size=(900, 4)))
    assert mixing.expected == pytest.approx(900 / 1199)
    assert mixing.generated_ratio == pytest.approx(1, abs=0.06)
    assert mixing.truth_ratio == pytest.approx(1, abs=0.12)


def test_collapse_onto_a_few_places_leaves_the_truth_uncovered():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(500, 3))
    collapsed = truth[rng.integers(0, 5, 500)] + 1e-6 * rng.normal(size=(500, 3))
    assert knn_mixing(collapsed, truth).truth_ratio < 0.2


def test_copies_are_not_their_own_neighbours():
    points = np.zeros((6, 2))
    mixing = knn_mixing(points, points, k=11)
    assert mixing.generated_share == mixing.truth_share == pytest.approx(6 / 11)


@pytest.mark.parametrize("k", [0, 4])
def test_impossible_numbers_of_neighbours_are_refused(k):
    with pytest.raises(ValueError, match="1 to 3"):
        knn_mixing(np.zeros((2, 2)), np.zeros((2, 2)), k=k)


def test_spaces_that_differ_by_turn_shift_and_scale_coincide_in_the_joint_space():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(200, 5))
    generated = truth + 0.1 * rng.normal(size=(200, 5))
    spaces = {
        "a": Space(generated, truth),
        "b": Space(3 * turned(generated, 1) + 7, 3 * turned(truth, 1) + 7),
    }
    joint = joint_space(spaces, "a")
    assert np.allclose(joint.generated["a"], joint.generated["b"])
    assert joint.misfit == pytest.approx({"a": 0, "b": 0}, abs=1e-9)
    assert "targets of a" in joint.caption and "b 0.00" in joint.caption


def test_misfit_is_the_share_of_variance_left_over():
    rng = np.random.default_rng(4)
    truth, other = rng.normal(size=(2, 3000, 3))
    spaces = {"a": Space(truth, truth), "b": Space(other, other)}
    assert joint_space(spaces, "a").misfit["b"] > 0.95  # unrelated truths
    blend = 0.8 * truth + 0.6 * other  # correlation 0.8 in every direction leaves 1 - 0.64
    assert joint_space(spaces | {"c": Space(blend, blend)}, "a").misfit["c"] == pytest.approx(0.36, abs=0.03)


def test_narrow_models_are_padded():
    rng = np.random.default_rng(5)
    spaces = {"wide": Space(*rng.normal(size=(2, 40, 6))), "narrow": Space(*rng.normal(size=(2, 40, 3)))}
    joint = joint_space(spaces, "wide")
    assert joint.generated["narrow"].shape == (40, 6)
    assert list(clouds_of(joint)) == [TRUTH, "wide", "narrow"]


def test_bad_spaces_are_refused():
    rng = np.random.default_rng(6)
    space = Space(*rng.normal(size=(2, 9, 2)))
    with pytest.raises(ValueError, match="'c'.*legal values are a"):
        joint_space({"a": space}, "c")
    with pytest.raises(ValueError, match="targets of b coincide"):
        joint_space({"a": space, "b": Space(space.generated, np.zeros((9, 2)))}, "a")
    with pytest.raises(ValueError, match="numbers of users differ"):
        subsample({"a": space, "b": Space(space.generated[:5], space.truth[:5])}, 4, rng)


def test_subsample_keeps_the_same_users_in_every_model():
    truth = np.arange(50.0)[:, None]
    spaces = {"a": Space(truth + 100, truth), "b": Space(truth + 200, truth)}
    kept = subsample(spaces, 10, np.random.default_rng(0))
    assert kept["a"].truth.shape == (10, 1)
    assert (kept["a"].truth == kept["b"].truth).all()
    assert (kept["b"].generated == kept["b"].truth + 200).all()
    assert (kept["a"].truth == subsample(spaces, 10, np.random.default_rng(0))["a"].truth).all()
    assert len(subsample(spaces, 1000, np.random.default_rng(0))["a"].truth) == 50


def test_pca_finds_the_plane_and_states_its_share():
    rng = np.random.default_rng(7)
    plane = np.zeros((300, 4))
    plane[:, 0], plane[:, 1] = rng.normal(0, 3, 300), rng.normal(0, 1, 300)
    picture = project_pca({"a": plane[:200], "b": plane[200:]})
    assert list(picture.points.columns) == ["label", "x", "y"]
    assert picture.points.label.value_counts().to_dict() == {"a": 200, "b": 100}
    assert np.corrcoef(picture.points.x, plane[:, 0])[0, 1] ** 2 > 0.99
    assert "100 %" in picture.caption


def test_tsne_repeats_with_its_seed_and_its_caption_warns():
    rng = np.random.default_rng(8)
    clouds = {"a": rng.normal(size=(40, 5)), "b": rng.normal(4, 1, size=(40, 5))}
    first, again = project_tsne(clouds, 0), project_tsne(clouds, 0)
    assert first.points.equals(again.points)
    assert not first.points.equals(project_tsne(clouds, 0, perplexity=5).points)
    assert "no evidence" in first.caption and "perplexity 26.3" in first.caption
