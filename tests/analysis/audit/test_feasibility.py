"""With HR@5 = 10 and HR@10 = 16, six percent of users have a rank from 6 to 10, so NDCG@10 - NDCG@5 lies between
6 / log2(11) = 1.7344 and 6 / log2(7) = 2.1373."""

from math import log2

import numpy as np
import pytest

from analysis.audit import feasibility, planted
from analysis.audit.cells import rows_of

BASE = {"HR@5": "10.0000", "HR@10": "16.0000", "NDCG@5": "7.0000"}


def alarms(cells):
    return feasibility.check(cells).findings


@pytest.mark.parametrize(
    ("ndcg10", "is_possible"),
    [("8.7344", True), ("8.7341", False), ("9.1372", True), ("9.1376", False), ("8.9000", True)],
)
def test_growth_between_cutoffs_on_both_sides_of_both_bounds(row, ndcg10, is_possible):
    assert (not alarms(row(BASE | {"NDCG@10": ndcg10}))) == is_possible


def test_bounds_are_those_of_the_docstring(row):
    stretch = feasibility.stretches({c.metric: c for c in row(BASE | {"NDCG@10": "9.5"})})[-1]
    assert stretch.allowed.lo == pytest.approx(6 / log2(11))
    assert stretch.allowed.hi == pytest.approx(6 / log2(7))
    assert stretch.found == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("ndcg5", "is_possible"), [("3.8685", True), ("3.8680", False), ("10.0", True), ("10.1", False)]
)
def test_bounds_within_the_first_cutoff(row, ndcg5, is_possible):
    # 10 / log2(6) = 3.8685
    assert (not alarms(row({"HR@5": "10.0000", "NDCG@5": ndcg5}))) == is_possible


def test_hit_rate_may_not_fall_with_the_cutoff(row):
    assert not alarms(row({"HR@5": "10.0", "HR@10": "10.0"}))
    assert not alarms(row({"HR@5": "10.0", "HR@10": "9.9"}))  # 9.95 could have been printed either way
    assert alarms(row({"HR@5": "10.0", "HR@10": "9.8"}))


def test_coarser_printing_forgives_more(row):
    fine = BASE | {"NDCG@10": "8.7300"}
    assert alarms(row(fine))
    assert not alarms(row(fine | {"NDCG@5": "7.0"}))


def test_reciprocal_rank_is_bounded_too(row):
    # Between 5 and 10 reciprocal ranks lie in [1/10, 1/6]: 6% more hits add 0.6 to 1.0.
    figures = {"HR@5": "10.00", "HR@10": "16.00", "MRR@5": "6.00"}
    assert not alarms(row(figures | {"MRR@10": "6.80"}))
    assert alarms(row(figures | {"MRR@10": "7.20"}))


def test_joint_programme_sees_what_single_stretches_cannot(row):
    # Both stretches are possible only if HR@5 was rounded down for one and up for the other.
    gain_low, gain_high = 1 / log2(11), 1 / log2(7)
    ndcg5 = 10.0 * 1.0 + 0.04  # needs HR@5 >= 10.04 - tolerance: nearly all hits at rank 1
    grown = (16.0 - 9.96) * gain_high  # needs HR@5 <= 9.96
    figures = {"HR@5": "10.0", "HR@10": "16.0000", "NDCG@5": f"{ndcg5:.4f}", "NDCG@10": f"{ndcg5 + grown:.4f}"}
    cells = row(figures)
    assert all(s.is_possible for s in feasibility.stretches({c.metric: c for c in cells}))
    assert alarms(cells)[0].evidence.get("joint")
    assert gain_low < gain_high


def test_metrics_without_hit_rate_go_to_the_programme(row):
    assert alarms(row({"NDCG@5": "10.0", "NDCG@10": "9.0"}))
    assert not alarms(row({"NDCG@5": "9.0", "NDCG@10": "10.0"}))


def test_metrics_of_random_ranks_always_pass():
    simulation = planted.simulate(np.random.default_rng(7))
    outcome = feasibility.check(planted.consistent(simulation, np.random.default_rng(0)))
    assert outcome.checked == len(planted.MODELS) * len(planted.USERS) == outcome.held


def test_weighted_means_of_rankings_always_pass(row):
    """Batches of unequal size, runs of unequal weight: the bounds are linear."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        counts = rng.multinomial(rng.integers(5, 200), rng.dirichlet(np.full(21, 0.3)), size=7)
        batches = planted.metrics_of(counts[:, :20], counts[0].sum())
        mean = rng.dirichlet(np.ones(7)) @ batches
        decimals = rng.integers(1, 5)
        figures = {m: f"{value:.{decimals}f}" for m, value in zip(planted.METRICS, mean, strict=True)}
        assert not alarms(row(figures))


def test_programme_agrees_with_bounds_on_the_paper(paper):
    for cells in rows_of(paper.table("2")).values():
        broken = any(not s.is_possible for s in feasibility.stretches(cells))
        assert feasibility.joint_feasible(cells) == (not broken)
