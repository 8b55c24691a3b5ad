"""Two sets of runs: the same ranks, other ranks with their size, and what cannot be compared."""

import json

import pytest

from analysis import agreement

OTHER = (1, 3, 12, 50)  # the third user falls out of the first ten: (1/3) / 4 of NDCG@10 is gone


@pytest.fixture
def two(grid_at, tmp_path):
    return grid_at(tmp_path / "first"), grid_at(tmp_path / "second")


def run(first, second, *options):
    return agreement.main([str(first.runs), str(second.runs), *options])


def test_a_cell_run_again_has_the_same_ranks(two, capsys):
    for grid in two:
        grid.write("sasrec")
    assert run(*two, "--same") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "| beauty/sasrec/seed1 | same ranks | 0 of 4 | 45.83 | 45.83 | +0.00 (0.00) | nothing |"


def test_a_difference_has_its_size_its_error_and_what_may_be_the_reason(two, capsys, tmp_path):
    two[0].write("sasrec")
    two[1].write("sasrec", ranks=OTHER, code_digest="e" * 64, environment={"device": "cpu", "torch": "2.14"})
    assert run(*two) == 0 and run(*two, "--same", "--out", str(tmp_path / "out.json")) == 1
    assert "| other ranks | 1 of 4 | 45.83 | 37.50 | -8.33 (8.33) | code, torch |" in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert [[place["torch"] for place in side] for side in written["sides"]] == [["2.13"], ["2.14"]]
    (cell,) = written["cells"]
    assert cell["users_differing"] == 1 and cell["difference"] == pytest.approx(-100 / 12)
    assert cell["standard_error"] == pytest.approx(100 / 12), "one user of four lost 1/3: sd 1/6, over sqrt(4)"


def test_the_metric_can_be_chosen(two, capsys):
    two[0].write("sasrec")
    two[1].write("sasrec", ranks=OTHER)
    assert run(*two, "--metric", "HR@10") == 0
    assert "| 75.00 | 50.00 | -25.00 " in capsys.readouterr().out


def test_seeds_are_compared_as_two_samples(two, capsys):
    for seed, (ranks, others) in enumerate([((1, 1), (1, 3)), ((1, 3), (1, 1)), ((3, 3), (3, 3))], start=1):
        two[0].write("sasrec", seed, ranks)
        two[1].write("sasrec", seed, others)
        two[1].write("stosa", seed, (1, 1))
    run(*two)
    *_, head, _, line = capsys.readouterr().out.splitlines()
    assert head.startswith("| method |")
    assert line.startswith("| sasrec, beauty | 3 / 3 | 75.00 ± 25.00 | 75.00 ± 25.00 | +0.00 [-87.83, +87.83] |")


def test_a_shift_beyond_the_seeds_has_an_interval_without_zero(two):
    for seed, ranks in enumerate([(1, 1, 1, 3), (1, 1, 3, 3)], start=1):
        two[0].write("sasrec", seed, ranks)
        two[1].write("sasrec", seed, (99, 99, 99, 99))
    first, second = (agreement.load_runs(grid.runs).runs for grid in two)
    (found,) = agreement.compare_methods(first, second, "NDCG@10")
    assert found.low < found.difference < found.high < 0.0 and found.second == 0.0


def test_runs_without_any_spread_differ_exactly(two):
    for seed in (1, 2):
        two[0].write("floor", seed)
        two[1].write("floor", seed, OTHER)
    first, second = (agreement.load_runs(grid.runs).runs for grid in two)
    (found,) = agreement.compare_methods(first, second, "NDCG@10")
    assert found.low == found.high == found.difference == pytest.approx(-100 / 12)


def test_nothing_in_common_is_a_mistake(two):
    two[0].write("sasrec")
    two[1].write("stosa")
    with pytest.raises(ValueError, match="no cell in common"):
        run(*two)


def test_a_cell_with_other_data_or_that_failed_is_listed_and_not_the_same(two, capsys):
    two[0].write("caser")
    two[1].write("caser", status="diverged", reason="loss")
    two[0].write("sasrec", dataset="toys")
    two[1].write("sasrec", dataset="toys", data_sha256="e" * 64)
    assert run(*two) == 0 and run(*two, "--same") == 1
    shown = capsys.readouterr().out
    assert "| beauty/caser/seed1 | completed and diverged |  |  |  |  | nothing |" in shown
    assert "| toys/sasrec/seed1 | other data |  |  |  |  | data |" in shown


def test_runs_that_must_not_be_averaged_are_no_sample(two, capsys):
    for seed in (1, 2):
        two[0].write("sasrec", seed)
        two[1].write("sasrec", seed, code_digest=f"{seed}" * 64)
    run(*two)
    assert "| method |" not in capsys.readouterr().out
