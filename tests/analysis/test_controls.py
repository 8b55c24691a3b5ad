"""Every variant stands beside the reading that it changes."""

from pathlib import Path

import pytest

from analysis import controls, overview
from analysis.load import load_runs

ROOT = Path(__file__).parents[2]
OTHER = (1, 3, 12, 50)  # the third user falls out of the first ten


def cells(text: str, key: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {key} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def runs(grid):
    for method in ("aligndiff", "aligndiff.released"):
        grid.write(method)
    grid.write("aligndiff.released.last_index", ranks=OTHER)
    grid.write("aligndiff.w_0.0", epochs_run=0, best_epoch=None)
    grid.write("aligndiff.w_0.0", 2, epochs_run=0)
    grid.write("aligndiff.sign_turned", status="diverged", reason="loss")
    return load_runs(grid.runs).runs


def test_each_variant_has_its_difference_to_the_reading_it_changes(runs):
    made = controls.table(runs)
    changed = cells(made, "beauty/aligndiff.released.last_index/seed1")
    assert changed[1:5] == ["trained", "50.00", "37.50", "aligndiff.released"]
    assert changed[5:] == ["-25.00 (25.00)", "-8.33 (8.33)", "25.0%"]
    assert cells(made, "beauty/aligndiff.released/seed1")[4] == "aligndiff"
    assert cells(made, "beauty/aligndiff.w_0.0/seed1")[1:] == [
        "taken over",
        *("75.00", "45.83", "aligndiff", "+0.00 (0.00)", "+0.00 (0.00)", "0.0%"),
    ]


def test_a_reading_has_no_other_seeds_no_partner_and_failures_no_line(runs):
    made = controls.table(runs)
    assert cells(made, "beauty/aligndiff/seed1")[4:] == ["", "", "", ""]
    assert cells(made, "beauty/aligndiff.w_0.0/seed2")[4] == ""
    assert "sign_turned" not in made


def test_what_is_no_variant_has_no_partner(grid):
    """A floor, a point of a sweep whose name begins like another's, and a run on other data."""
    for method in ("aligndiff.omega_0", "aligndiff.omega_0.1", "floor.knn"):
        grid.write(method, epochs_run=0, best_epoch=None)
    grid.write("aligndiff", data_sha256="f" * 64)
    made = controls.table(load_runs(grid.runs, allow_mixed=True).runs)
    for method in ("aligndiff.omega_0", "aligndiff.omega_0.1", "floor.knn", "aligndiff"):
        assert cells(made, f"beauty/{method}/seed1")[4:] == ["", "", "", ""]
    assert cells(made, "beauty/floor.knn/seed1")[1] == ""


def test_the_table_goes_between_the_marks(runs, grid, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before {overview.BEGIN} {overview.END} after")
    assert controls.main([str(grid.runs), "--readme", str(readme)]) == 0
    assert readme.read_text().startswith("before") and "aligndiff.released.last_index" in readme.read_text()


def test_a_folder_without_completed_runs_is_a_mistake(grid):
    grid.write("caser", status="diverged", reason="loss")
    with pytest.raises(ValueError, match="no completed run"):
        controls.main([str(grid.runs)])


def test_the_results_page_shows_the_committed_runs():
    """After new runs: python -m analysis.controls results/reference/small/runs --readme results/README.md."""
    runs = load_runs(ROOT / "results/reference/small/runs", allow_mixed=True).runs
    assert controls.table(runs) in (ROOT / "results/README.md").read_text(encoding="utf-8")
