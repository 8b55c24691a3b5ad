"""Runs of one seed stand beside each other, and the difference has the sign of the first."""

from pathlib import Path

import pytest

from analysis import seed_by_seed
from analysis.load import load_runs

ROOT = Path(__file__).parents[2]
OTHER = (1, 3, 12, 50)  # the third user falls out of the first ten


def lines(runs, *args, **kwargs):
    made = seed_by_seed.table(runs, *args, **kwargs).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in made]


@pytest.fixture
def runs(grid):
    grid.write("diffurec.tuned")
    grid.write("aligndiff.tuned", ranks=OTHER)
    grid.write("aligndiff.tuned", 2)
    grid.write("aligndiff.tuned.no_diffusion")
    grid.write("diffurec.tuned.no_diffusion", status="diverged", reason="loss")
    return load_runs(grid.runs).runs


def test_aligndiff_beside_its_diffurec_and_a_variant_beside_its_reading(runs):
    found = {(line[0], line[1]): line for line in lines(runs)}
    assert list(found) == [
        ("aligndiff.tuned, beauty", "diffurec.tuned"),
        ("aligndiff.tuned.no_diffusion, beauty", "aligndiff.tuned"),
    ]
    assert found["aligndiff.tuned, beauty", "diffurec.tuned"][2] == "1"  # seed 2 has no partner
    assert found["aligndiff.tuned, beauty", "diffurec.tuned"][5:7] == ["-25.00 (25.00)", "-8.33 (8.33)"]
    assert found["aligndiff.tuned.no_diffusion, beauty", "aligndiff.tuned"][5] == "+25.00 (25.00)"


def test_the_released_reading_stands_beside_both_models(grid):
    for name in ("diffurec.tuned", "aligndiff.tuned", "aligndiff.tuned.released.keys"):
        grid.write(name)
    found = [line[:2] for line in lines(load_runs(grid.runs).runs)]
    assert [other for name, other in found if "released" in name] == ["diffurec.tuned", "aligndiff.tuned"]


def test_hidden_columns_are_of_hidden_ranks(grid):
    grid.write("diffurec")
    grid.write("aligndiff")
    runs = load_runs(grid.runs).runs
    ours = next(run for run in runs if run.record.method == "aligndiff")
    ours.ranks["test_hidden"] = ours.ranks["test_hidden"] + 1000
    (line,) = lines(runs)
    assert line[5:7] == ["+0.00 (0.00)", "+0.00 (0.00)"]
    assert all(cell.startswith("-") for cell in line[7:])


def test_the_other_side_may_come_from_another_folder(runs):
    ours = [run for run in runs if run.record.method == "aligndiff.tuned"]
    theirs = [run for run in runs if run.record.method == "diffurec.tuned"]
    (line,) = lines(ours, theirs, names={"aligndiff.tuned": "AlignDiff (tuned)", "beauty": "Beauty"})
    assert line[:2] == ["AlignDiff (tuned), Beauty", "diffurec.tuned"]


def test_other_data_is_no_partner(grid):
    grid.write("diffurec.tuned")
    grid.write("aligndiff.tuned", data_sha256="f" * 64)
    assert seed_by_seed.table(load_runs(grid.runs, allow_mixed=True).runs) == ""
    with pytest.raises(ValueError, match="no pair in"):
        seed_by_seed.main([str(grid.runs)])


def test_the_committed_runs_have_both_seeds_of_the_main_pair(capsys):
    assert seed_by_seed.main([str(ROOT / "results/reference/runs")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| aligndiff.tuned, toys | diffurec.tuned |") for line in printed) == 2
