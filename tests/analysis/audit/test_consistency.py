from decimal import Decimal

import pytest

from analysis.audit import consistency

SAME = {("2", "Ours"): "Ours", ("3", "full"): "Ours"}


def repeats(cell, other, first="8.126", rival="8.0000"):
    cells = [cell("HR@10", first), cell("HR@10", rival, model="Rival"), cell("HR@10", other, table="3", model="full")]
    return consistency.check_repeats(cells, SAME)


@pytest.mark.parametrize(
    ("other", "is_same"), [("8.1260", True), ("8.1256", True), ("8.1265", True), ("8.1267", False)]
)
def test_same_cell_within_rounding(cell, other, is_same):
    assert (not repeats(cell, other).findings) == is_same


def test_difference_and_rank_with_the_other_figure(cell):
    outcome = repeats(cell, "7.8260")
    (finding,) = outcome.findings
    assert finding.evidence["difference"] == pytest.approx(0.3)
    assert finding.evidence["is_multiple_of_0.1"]
    assert finding.evidence["rank_with_other_figure"] == 2
    assert finding.evidence["improvement_with_other_figure"] == pytest.approx(100 * (7.826 / 8 - 1))
    assert "best-overall" in finding.claims
    assert "in 1 of 1 comparisons" in outcome.headline and "not be first in any of them (-2.2%" in outcome.headline


def test_a_difference_that_leaves_the_method_first_does_not_touch_that_claim(cell):
    assert "best-overall" not in repeats(cell, "8.0260").findings[0].claims


@pytest.mark.parametrize(
    ("text", "is_round"), [("0.3000", True), ("1.5", True), ("0.3001", False), ("0", False), ("-0.8", True)]
)
def test_round_differences(text, is_round):
    assert consistency.is_round_difference(Decimal(text)) == is_round


def test_twins_need_three_equal_figures(row):
    figures = {"HR@5": "1.11", "HR@10": "2.22", "HR@20": "3.33"}
    twin = row(figures, model="Twin")
    assert consistency.check_twins(row(figures) + twin).findings
    assert not consistency.check_twins(row(figures | {"HR@5": "1.12"}) + twin).findings
    assert not consistency.check_twins(row(figures, dataset="Other") + twin).findings


def test_twins_of_one_decimal_agree_by_chance(row):
    for digits, found in ((1, False), (2, True)):
        figures = {metric: f"{value:.{digits}f}" for metric, value in (("HR@5", 1.3), ("HR@10", 2.6), ("HR@20", 4.1))}
        assert bool(consistency.check_twins(row(figures) + row(figures, model="Twin")).findings) == found
