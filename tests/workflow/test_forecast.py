"""What a configuration will cost: from its own records, scaled between devices and datasets, from relatives."""

from __future__ import annotations

import json

import pytest
import yaml

from harness import cli
from harness.grid import Cell, Grid
from harness.record import read_record
from harness.synthetic import random_walk
from workflow.scripts import forecast, train
from workflow.scripts.forecast import Cost, estimate, known_costs, scaled_to

ACTIONS = {"small": 100, "large": 300}


def cost(epoch_seconds=6.0, **changes):
    values = {"epochs": 10, "final_seconds": 4.0, "memory_bytes": 0, "disk_bytes": 0, "actions": 100, "device": "cpu"}
    values["patience"] = 10_000  # ended by itself
    return Cost(epoch_seconds=epoch_seconds, **values | changes)


@pytest.fixture(scope="module")
def grid():
    methods = ["aligndiff", "aligndiff.energy_1", "aligndiff.correction_2", "sasrec", "sasrec.tuned", "caser"]
    config = {
        "grid": [{"datasets": ["small", "large"], "methods": methods, "seeds": [1]}],
        "datasets": {"small": {}, "large": {}},
        "overrides": {},
    }
    return Grid(config)


@pytest.mark.parametrize(
    ("dataset", "method", "seconds", "source"),
    [
        ("small", "aligndiff", 64.0, "10 epochs of 6.0 s on cpu"),
        ("large", "aligndiff", 192.0, "10 epochs of 18.0 s on cpu, scaled from small by actions"),
        ("small", "aligndiff.energy_1", 64.0, "as aligndiff: 10 epochs of 6.0 s on cpu"),
        ("small", "aligndiff.correction_2", 4.0, "as aligndiff: evaluation of 4.0 s on cpu"),
        ("small", "sasrec", 24.0, "as sasrec.tuned: 10 epochs of 2.0 s on cpu"),
    ],
)
def test_where_an_estimate_is_from(grid, dataset, method, seconds, source):
    costs = {("small", "aligndiff"): cost(), ("small", "sasrec.tuned"): cost(2.0)}
    found, said = estimate(grid, Cell(dataset, method, 1), costs, ACTIONS)
    assert found.seconds == pytest.approx(seconds) and said == source


def test_a_family_that_never_ran_is_unknown(grid):
    assert estimate(grid, Cell("small", "caser", 1), {("small", "aligndiff"): cost()}, ACTIONS) is None


def test_a_run_that_was_cut_off_says_at_least(grid):
    costs = {("small", "aligndiff"): cost(cut_off=True)}
    assert estimate(grid, Cell("small", "aligndiff", 1), costs, ACTIONS)[1].startswith("at least 10 epochs")


def test_a_run_with_less_patience_than_the_grids_says_at_least(grid):
    plan = grid.settings("small", "aligndiff")["training"]
    for patience, start in ((plan["patience"] * plan["eval_every"], "10 epochs"), (6, "at least 10 epochs")):
        costs = {("small", "aligndiff"): cost(patience=patience)}
        assert estimate(grid, Cell("small", "aligndiff", 1), costs, ACTIONS)[1].startswith(start)


def test_another_device_is_scaled_by_what_both_measured():
    shared, only = ("small", "sasrec"), ("small", "aligndiff")
    measured = {"cpu": {shared: cost(8.0), only: cost(40.0)}, "gpu": {shared: cost(2.0, device="gpu")}}
    found = scaled_to("gpu", measured)
    assert found[shared].epoch_seconds == 2.0
    assert found[only].epoch_seconds == 10.0 and found[only].final_seconds == 1.0
    assert scaled_to("other", measured) == {}, "nothing was measured on it, so nothing can be scaled"


def test_a_variant_costs_what_the_nearest_parent_does(grid):
    method = "aligndiff.tuned.energy_1"
    sized = Grid(grid.config | {"grid": [{"datasets": ["small"], "methods": [method], "seeds": [1]}]})
    costs = {("small", "aligndiff"): cost(9.0), ("small", "aligndiff.tuned"): cost(2.0)}
    assert estimate(sized, Cell("small", method, 1), costs, ACTIONS)[1].startswith("as aligndiff.tuned: 10 epochs of 2")


def test_a_record_of_another_size_is_no_measure(grid, tmp_path):
    random_walk(num_users=30, num_items=20).save(tmp_path / "sequences.npz")
    for seed, width in ((1, 4), (2, 64)):
        overrides = {"model": {"embedding_dim": width, "max_len": 4}, "training": {"max_epochs": 1}}
        argv = ["--sequences", str(tmp_path / "sequences.npz"), "--dataset", "small", "--method", "sasrec"]
        argv += ["--seed", str(seed), "--compute", '{"device": "cpu"}', "--overrides", json.dumps(overrides)]
        assert train.main([*argv, "--out", str(tmp_path / f"runs/small/sasrec/seed{seed}")]) == 0
    sized = Grid(grid.config | {"overrides": {"sasrec": {"model": {"embedding_dim": 4, "max_len": 4}}}})
    found = known_costs([tmp_path], sized, None)["small", "sasrec"]
    few = read_record(tmp_path / "runs/small/sasrec/seed1/record.json")
    assert found.final_seconds == few.eval_seconds
    assert not known_costs([tmp_path], grid, None), "the grid's own width is neither"
    other_rate = {"embedding_dim": 4, "max_len": 4, "dropout": 0.9}
    rated = Grid(grid.config | {"overrides": {"sasrec": {"model": other_rate}}})
    assert known_costs([tmp_path], rated, None), "a rate costs no time"


def test_the_command(tmp_path, capsys):
    out, sequences = tmp_path / "out", tmp_path / "sequences.npz"
    random_walk(num_users=30, num_items=20).save(sequences)
    overrides = {"model": {"embedding_dim": 4, "max_len": 4}, "training": {"max_epochs": 1}}
    config = {
        "output": str(out),
        "grid": [{"datasets": ["toy"], "methods": ["sasrec"], "seeds": [1, 2, 3]}],
        "datasets": {"toy": {"display": "Toy", "format": "sequences", "expected": {"actions": 500}}},
        "sweeps": [],
        "overrides": {"sasrec": {"model": overrides["model"]}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    argv = ["--sequences", str(sequences), "--dataset", "toy", "--method", "sasrec", "--seed", "1"]
    argv += ["--compute", '{"device": "cpu", "threads": 1}', "--overrides", json.dumps(overrides)]
    assert train.main([*argv, "--out", str(out / "runs/toy/sasrec/seed1")]) == 0
    capsys.readouterr()
    argv = ["--configfile", str(tmp_path / "config.yaml"), "--records", str(out)]
    assert forecast.main(argv) == 0
    printed = capsys.readouterr().out
    assert "measured on cpu" in printed and "2 to run" in printed and "at least 1 epochs" in printed
    assert "total: 2 of 3 runs left" in printed and "without an estimate" not in printed
    assert forecast.main([*argv, "--device", "another"]) == 0
    printed = capsys.readouterr().out
    assert "none on another; run one cell there" in printed and "2 runs without an estimate" in printed


@pytest.mark.parametrize("script", ["forecast", "progress"])
def test_records_that_are_not_there_are_one_error(tmp_path, capsys, script):
    module = __import__(f"workflow.scripts.{script}", fromlist=["main"])
    assert cli.run(module.main, ["--records", str(tmp_path / "absent")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "absent: no such folder" in error and error.count("\n") == 1


def test_an_output_elsewhere_is_looked_into_once_it_is_there(tmp_path):
    inside, outside = tmp_path / "results" / "mine", tmp_path / "elsewhere"
    assert forecast.with_output([tmp_path / "results"], inside) == [tmp_path / "results"]
    assert forecast.with_output([tmp_path / "results"], outside) == [tmp_path / "results"]
    outside.mkdir()
    assert forecast.with_output([tmp_path / "results"], outside) == [tmp_path / "results", outside]
