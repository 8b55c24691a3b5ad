import pytest

from analysis.audit import arithmetic, cells
from analysis.audit.paper_tables import DatasetRow
from analysis.audit.printed import Printed


@pytest.mark.parametrize(
    ("avg", "holds"), [("8.88", True), ("8.876", True), ("8.87", False), ("8.89", False), ("8.9", True)]
)
def test_average_length_under_rounding(avg, holds):
    # 198502 / 22363 = 8.87636
    row = DatasetRow("D", 22363, 12101, 198502, Printed.parse(avg), Printed.parse("99.93"))
    assert (not arithmetic.check_statistics([row]).findings) == holds


@pytest.mark.parametrize(("sparsity", "holds"), [("99.93", True), ("99.92", False), ("99.94", False), ("99.9", True)])
def test_sparsity_under_rounding(sparsity, holds):
    # 100 - 100 * 198502 / (22363 * 12101) = 99.92665
    row = DatasetRow("D", 22363, 12101, 198502, Printed.parse("8.88"), Printed.parse(sparsity))
    assert (not arithmetic.check_statistics([row]).findings) == holds


def improvements(cell, claimed, metric="HR@10", ours="11.00", rivals=("10.00", "8.00")):
    cells = [cell(metric, ours, improvement=claimed)]
    cells += [cell(metric, value, model=f"Rival {value}") for value in rivals]
    return arithmetic.check_improvements(cells)


@pytest.mark.parametrize(
    ("claimed", "holds"), [("10.0", True), ("10.1", True), ("9.9", True), ("10.2", False), ("9.8", False)]
)
def test_improvement_under_rounding(cell, claimed, holds):
    # 10.995 / 10.005 to 11.005 / 9.995: 9.895% to 10.105%; a claim of 10.1 stands for 10.05 to 10.15.
    assert (not improvements(cell, claimed).findings) == holds


def test_improvement_over_another_rival_is_named(cell):
    (finding,) = improvements(cell, "37.5").findings
    assert finding.evidence["fits_rivals"] == ["Rival 8.00"]
    assert finding.kind == "error in arithmetic"


def test_lower_is_better_for_mmd(cell):
    assert not improvements(cell, "10.8", "MMD", "0.33", ("0.37",)).findings
    assert improvements(cell, "12.1", "MMD", "0.33", ("0.37", "0.30")).findings  # 0.30 is the best rival


def test_rivals_tied_by_rounding_are_both_tried(cell):
    assert not improvements(cell, "10.0", rivals=("10.00", "10.00")).findings


@pytest.mark.parametrize(("metric", "is_lower"), [("MMD", True), ("rmse", True), ("HR@10", False)])
def test_names_of_errors_are_known_in_any_case(metric, is_lower):
    assert cells.lower_is_better(metric) is is_lower
