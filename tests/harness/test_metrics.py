"""Metrics by hand, against two libraries, and within the bounds any ranking obeys."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from harness.metrics import CUTOFFS, batch_mean, hit_rate, ndcg, per_user, summarise
from harness.ranking import rank_of_target

RANKS = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(lambda rows: np.array(rows, dtype=np.int32))


def test_hit_rate_by_hand():
    assert hit_rate(np.array([1, 5, 6, 100]), 5).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_ndcg_by_hand():
    expected = [1.0, 1 / math.log2(3), 0.5, 1 / math.log2(6), 0.0]
    np.testing.assert_allclose(ndcg(np.array([1, 2, 3, 5, 6]), 5), expected, rtol=1e-15)


def test_summary_averages_over_users_as_fractions():
    summary = summarise(np.array([1, 3, 7, 21], dtype=np.int32))
    assert list(summary) == ["HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20"]
    assert summary["HR@5"] == 0.5
    assert summary["NDCG@5"] == pytest.approx((1 + 0.5) / 4)
    assert summary["HR@10"] == summary["HR@20"] == 0.75
    assert summary["NDCG@20"] == pytest.approx((1 + 0.5 + 1 / 3) / 4)


def test_batch_mean_weighs_a_short_last_batch_too_much():
    rank_U = np.array([1, 1, 1, 1, 99])
    assert batch_mean(rank_U, "HR@5", batch_size=4) == 0.5
    assert batch_mean(rank_U, "HR@5", batch_size=5) == summarise(rank_U)["HR@5"] == 0.8


@pytest.mark.parametrize("name", ["MRR@10", "HR", "HR@", "HR@0", "HR@-1", "HR@ten", "hr@10"])
def test_unknown_metric_names_are_refused(name):
    with pytest.raises(ValueError, match="expected one of"):
        per_user(np.array([1]), name)


def scores_with_ties(num_users: int, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.integers(0, 30, (num_users, num_items)) / 8.0, rng.integers(0, num_items, num_users)


def ranks_of(score_UI: np.ndarray, target_U: np.ndarray) -> np.ndarray:
    padded = torch.from_numpy(np.pad(score_UI, ((0, 0), (1, 0)), constant_values=-np.inf))
    return rank_of_target(padded, torch.from_numpy(target_U) + 1).numpy()


def test_ranks_agree_with_scipy_on_ties():
    score_UI, target_U = scores_with_ties(200, 90)
    expected = rankdata(-score_UI, method="max", axis=1)[np.arange(200), target_U]
    np.testing.assert_array_equal(ranks_of(score_UI, target_U), expected)


def break_ties_against(score_UI: np.ndarray, target_U: np.ndarray) -> np.ndarray:
    """Both libraries order ties in ways of their own; a hair off the target's score makes ours the only order."""
    broken = score_UI + np.arange(score_UI.shape[1]) * 1e-9
    broken[np.arange(len(target_U)), target_U] -= 1e-6
    return broken


@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_agree_with_scikit_learn(k):
    score_UI, target_U = scores_with_ties(200, 90)
    rank_U, broken = ranks_of(score_UI, target_U), break_ties_against(score_UI, target_U)
    relevant = np.eye(90)[target_U]
    assert summarise(rank_U)[f"NDCG@{k}"] == pytest.approx(ndcg_score(relevant, broken, k=k), abs=1e-12)
    expected = top_k_accuracy_score(target_U, broken, k=k, labels=np.arange(90))
    assert summarise(rank_U)[f"HR@{k}"] == pytest.approx(expected, abs=1e-12)


@given(RANKS)
def test_any_ranks_obey_the_feasibility_bounds(rank_U):
    """NDCG@b - NDCG@a lies within dHR / log2(b + 1) and dHR / log2(a + 2): each new hit ranks a + 1 to b."""
    summary = summarise(rank_U)
    for a, b in ((5, 10), (10, 20), (5, 20)):
        hits = summary[f"HR@{b}"] - summary[f"HR@{a}"]
        gain = summary[f"NDCG@{b}"] - summary[f"NDCG@{a}"]
        assert hits / math.log2(b + 1) - 1e-12 <= gain <= hits / math.log2(a + 2) + 1e-12
    for k in CUTOFFS:
        assert summary[f"HR@{k}"] / math.log2(k + 1) - 1e-12 <= summary[f"NDCG@{k}"] <= summary[f"HR@{k}"] + 1e-12


@given(RANKS)
def test_user_order_does_not_matter_to_metrics(rank_U):
    forwards, backwards = summarise(rank_U), summarise(rank_U[::-1])
    assert all(forwards[name] == pytest.approx(backwards[name]) for name in forwards)
