"""The grid: which cells a configuration asks for, and which of them a change concerns."""

import copy

import pytest
import yaml

from harness.fit import CLOCK
from harness.grid import Cell, Grid
from harness.methods import load_method

BASE = {
    "name": "test",
    "datasets": {"beauty": {"display": "Beauty"}, "ml-1m": {"display": "ML-1M"}},
    "grid": [{"datasets": ["beauty", "ml-1m"], "methods": ["sasrec", "diffurec"], "seeds": [1, 2]}],
    "sweeps": [],
    "overrides": {},
    "compute": {},
    "analysis": {"cutoffs": [5]},
}


def config(**changes):
    return copy.deepcopy(BASE) | changes


def sweep(**changes):
    values = {"name": "delta", "method": "diffurec", "field": "delta", "values": [0.01, 0.1], "retrain": False}
    return [values | {"datasets": ["beauty"], "seeds": [1]} | changes]


def digests(grid):
    return {(cell.dataset, cell.method): grid.settings_sha256(cell.dataset, cell.method) for cell in grid.cells}


def test_cells_are_the_product_without_repeats():
    again = {"datasets": ["beauty"], "methods": ["sasrec"], "seeds": [2, 3]}
    grid = Grid(config(grid=[*BASE["grid"], again]))
    assert len(grid.cells) == 9 and grid.cells == sorted(set(grid.cells))
    assert Cell("beauty", "sasrec", 3) in grid.cells and Cell("ml-1m", "sasrec", 3) not in grid.cells
    assert grid.cells[0].path == "beauty/diffurec/seed1"
    assert grid.datasets == ["beauty", "ml-1m"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"grid": [{"datasets": ["beuty"], "methods": ["sasrec"], "seeds": [1]}]},
            "unknown dataset 'beuty' .did you mean 'beauty'.*known: beauty, ml-1m",
        ),
        (
            {"grid": [{"datasets": ["beauty"], "methods": ["sasrek"], "seeds": [1]}]},
            "unknown method 'sasrek' .did you mean 'sasrec'",
        ),
        ({"overrides": {"sasrek": {}}}, "overrides: 'sasrek' is not a method of the grid .did you mean 'sasrec'"),
        ({"overrides": {"al": {}}}, "did you mean 'all'"),
        (
            {"analysis": {"cutoffs": [5], "mmd": {"methods": ["aligndif"]}}},
            "analysis.mmd.methods: unknown method 'aligndif' .did you mean 'aligndiff'",
        ),
        ({"overrides": {"all": {"training": {"patiense": 3}}}}, "^overrides, as they reach .*unknown key 'patiense'"),
        ({"overrides": {"sasrec": {"model": {"droput": 0.1}}}}, "method sasrec: model: unknown key 'droput'"),
        ({"sweeps": sweep(method="difurec")}, "unknown method 'difurec'"),
        ({"sweeps": sweep(datasets=["beuty"])}, "unknown dataset 'beuty'"),
        ({"sweeps": sweep(field="dleta")}, "unknown key 'dleta' .did you mean 'delta'"),
        (
            {"sweeps": sweep(retrain=True), "overrides": {"all": {"training": {"patiense": 3}}}},
            "^overrides, as they reach",
        ),
        ({"sweeps": sweep(values=[-1.0])}, "delta: -1.0 is out of range"),
        ({"sweeps": sweep(values=["much"])}, "delta: expected a number, got 'much'"),
        ({"sweeps": [*sweep(), *sweep(field="dropout")]}, "'delta' of 'diffurec' calls a point 'diffurec.delta_0.01'"),
        (
            {"sweeps": sweep(name="correction", method="aligndiff", field="correction", values=[2])},
            "another run's name",
        ),
        (
            {"analysis": {"cutoffs": [5], "mmd": {"methods": ["sasrec"]}}},
            "analysis.mmd.methods: 'sasrec' generates no representation",
        ),
        (
            {
                "analysis": {"cutoffs": [5], "mmd": {"methods": ["aligndiff.correction_2"]}},
                "grid": [{"datasets": ["beauty"], "methods": ["aligndiff.correction_2"], "seeds": [1]}],
            },
            "'aligndiff.correction_2' keeps no weights of its own; name 'aligndiff'",
        ),
    ],
)
def test_mistakes_are_named_before_anything_runs(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid(config(**changes))


def test_an_override_concerns_its_own_method_only():
    before, after = digests(Grid(config())), digests(Grid(config(overrides={"sasrec": {"model": {"dropout": 0.4}}})))
    assert {key for key in before if before[key] != after[key]} == {("beauty", "sasrec"), ("ml-1m", "sasrec")}


def test_an_override_of_all_concerns_everything_and_the_methods_own_wins():
    overrides = {"all": {"training": {"patience": 3}}, "sasrec": {"training": {"patience": 4}}}
    grid = Grid(config(overrides=overrides))
    assert grid.settings("beauty", "diffurec")["training"]["patience"] == 3
    assert grid.settings("beauty", "sasrec")["training"]["patience"] == 4
    before, after = digests(Grid(config())), digests(grid)
    assert all(before[key] != after[key] for key in before)


def test_stating_a_default_changes_nothing():
    assert digests(Grid(config())) == digests(Grid(config(overrides={"diffurec": {"model": {"variance": "beta"}}})))


def test_datasets_sections_of_a_method_file_concern_their_dataset():
    grid = Grid(config())
    assert grid.settings("ml-1m", "sasrec")["model"]["max_len"] == 200
    assert grid.settings("beauty", "sasrec")["model"]["max_len"] == 50


def test_a_sweep_without_training_reuses_the_methods_weights():
    only_sweep = [{"datasets": ["ml-1m"], "methods": ["sasrec"], "seeds": [1]}]
    grid = Grid(config(grid=only_sweep, sweeps=sweep(seeds=[7])))
    assert {cell.method for cell in grid.cells if cell.dataset == "beauty"} == {
        "diffurec",
        "diffurec.delta_0.01",
        "diffurec.delta_0.1",
    }
    assert Cell("beauty", "diffurec", 7) in grid.cells, "the run whose weights are reused is pulled in"
    assert grid.reusing() == ["diffurec.delta_0.01", "diffurec.delta_0.1"]
    assert set(grid.trained()) == {"sasrec", "diffurec"}
    assert grid.settings("beauty", "diffurec.delta_0.1")["model"]["delta"] == 0.1
    assert grid.settings("beauty", "diffurec")["model"]["delta"] == 0.001


def test_a_sweep_with_training_stands_alone():
    grid = Grid(config(grid=[{"datasets": ["ml-1m"], "methods": ["sasrec"], "seeds": [1]}], sweeps=sweep(retrain=True)))
    assert "diffurec" not in grid.contestants
    assert grid.reusing() == []


def test_a_value_that_is_the_methods_own_is_not_trained_again():
    grid = Grid(config(sweeps=sweep(retrain=True, values=[0.001, 0.1])))
    assert grid.reusing() == ["diffurec.delta_0.001"]
    grid = Grid(config(sweeps=sweep(retrain=True), overrides={"diffurec": {"model": {"delta": 0.1}}}))
    assert grid.reusing() == ["diffurec.delta_0.1"]


def test_numbers_that_yaml_takes_for_text_are_numbers():
    grid = Grid(config(sweeps=sweep(values=["1e-3", "5e-2"])))
    assert grid.plan()["sweeps"][0]["values"] == [0.001, 0.05]
    assert grid.plan()["sweeps"][0]["cells"] == ["diffurec.delta_0.001", "diffurec.delta_0.05"]


def test_one_sweep_may_stand_twice_for_two_datasets():
    grid = Grid(config(sweeps=[*sweep(), *sweep(datasets=["ml-1m"], seeds=[2])]))
    assert Cell("ml-1m", "diffurec.delta_0.1", 2) in grid.cells


DROPOUT = {"name": "drop", "method": "sasrec", "field": "dropout", "values": [0.2], "retrain": True}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"retrain": True}, {"retrain": False}),  # the method's weights would do for one and not for the other
        (DROPOUT, DROPOUT),  # 0.2 is what the method has on the second dataset anyway
    ],
)
def test_a_point_is_not_trained_for_one_dataset_and_taken_over_for_another(first, second):
    """What the last sweep decided would hold for all: weights of another setting, under this one's name."""
    both = [*sweep(**first), *sweep(**{"datasets": ["ml-1m"], **second})]
    with pytest.raises(ValueError, match="stands twice, and '.*' would be trained for datasets of one"):
        Grid(config(sweeps=both))


def test_points_of_a_sweep_follow_their_methods_overrides():
    grid = Grid(config(sweeps=sweep(), overrides={"diffurec": {"model": {"max_len": 9, "delta": 5.0}}}))
    found = grid.settings("beauty", "diffurec.delta_0.1")["model"]
    assert found["max_len"] == 9 and found["delta"] == 0.1


def test_what_changes_a_method_changes_all_that_build_on_it():
    """Two that are compared were once trained under two protocols, as only their common root was looked up."""
    block = [{"datasets": ["beauty"], "methods": ["aligndiff.tuned", "aligndiff.tuned.constant_rate"], "seeds": [1]}]
    rounds = {
        "aligndiff": {"training": {"patience": 3, "max_epochs": 9}},
        "aligndiff.tuned": {"training": {"patience": 7}},
    }
    grid = Grid(config(grid=block, overrides=rounds))
    for name in ("aligndiff.tuned", "aligndiff.tuned.constant_rate"):
        training = grid.settings("beauty", name)["training"]
        assert (training["patience"], training["max_epochs"]) == (7, 9)
    alone = Grid(config(grid=[block[0] | {"methods": ["aligndiff.tuned.constant_rate"]}], overrides=rounds))
    assert alone.settings("beauty", "aligndiff.tuned.constant_rate") == grid.settings(
        "beauty", "aligndiff.tuned.constant_rate"
    )


def write_methods(folder):
    base = {"builder": "baselines.diffurec", "summary": "x."}
    for name, more in {
        "base": {"display": "Base"},
        "again": {"display": "Again", "variant_of": "base", "reuse_weights": "base"},
        "thrice": {"display": "Thrice", "reuse_weights": "again"},
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(base | more))
    return folder


def test_reusing_weights_pulls_the_origin_and_its_overrides(tmp_path):
    block = [{"datasets": ["beauty"], "methods": ["again"], "seeds": [3]}]
    grid = Grid(config(grid=block, overrides={"base": {"model": {"max_len": 9}}}), write_methods(tmp_path))
    assert grid.cells == [Cell("beauty", "again", 3), Cell("beauty", "base", 3)]
    assert grid.settings("beauty", "again")["model"]["max_len"] == 9, "reused weights have the origin's shape"


def test_a_section_for_a_dataset_that_does_not_exist_is_named(tmp_path):
    method = {"builder": "baselines.diffurec", "display": "X", "datasets": {"ml1m": {"training": {"max_epochs": 1}}}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(method))
    with pytest.raises(ValueError, match="x.yaml: datasets: there is no 'ml1m' .did you mean 'ml-1m'"):
        Grid(config(grid=[{"datasets": ["beauty"], "methods": ["x"], "seeds": [1]}]), tmp_path)


def test_weights_of_weights_are_refused(tmp_path):
    block = [{"datasets": ["beauty"], "methods": ["thrice"], "seeds": [3]}]
    with pytest.raises(ValueError, match="thrice.yaml: reuse_weights: again is not trained; name base"):
        Grid(config(grid=block), write_methods(tmp_path))


def test_code_digests_differ_between_builders_only():
    grid = Grid(config(sweeps=sweep()))
    assert grid.code_digest("diffurec") == grid.code_digest("diffurec.delta_0.1") != grid.code_digest("sasrec")


def test_compute_settings_are_checked():
    assert '"device": "cpu"' in Grid(config(compute={"device": "cpu"})).compute_json(on_gpu=False)
    with pytest.raises(ValueError, match="compute: unknown key 'devise' .did you mean 'device'"):
        Grid(config(compute={"devise": "cpu"})).compute_json(on_gpu=False)


def test_a_planned_gpu_is_demanded_of_the_jobs_and_the_lack_of_one_is_no_wish_for_a_cpu():
    assert '"device": "cuda"' in Grid(config()).compute_json(on_gpu=True)
    assert '"device": "auto"' in Grid(config()).compute_json(on_gpu=False)


def test_what_decides_no_result_is_no_reason_to_run_again():
    def deciding(on_gpu, **changes):
        return Grid(config(compute=changes)).deciding_compute_json(on_gpu=on_gpu)

    for changes in ({"jobs_per_gpu": 2}, {"device": "cuda"}, {"threads": 4}):
        assert deciding(True, **changes) == deciding(True)
    assert deciding(False) == deciding(False, device="cpu") != deciding(True)
    assert deciding(False, threads=1) != deciding(False, threads=2), "sums in another order"
    assert deciding(True, precision="bf16") != deciding(True) != deciding(True, deterministic=True)


def test_the_plan_lists_every_cell_for_analysis():
    grid = Grid(config(sweeps=sweep()))
    plan = grid.plan()
    assert len(plan["cells"]) == len(grid.cells)
    sasrec = {"dataset": "beauty", "method": "sasrec", "seed": 1, "display": "SASRec"}
    summary = load_method("sasrec").summary
    assert sasrec | {"variant_of": None, "weights_of": None, "summary": summary} in plan["cells"]
    assert {cell["weights_of"] for cell in plan["cells"] if "delta" in cell["method"]} == {"diffurec"}
    assert plan["sweeps"][0]["cells"] == ["diffurec.delta_0.01", "diffurec.delta_0.1"]
    assert plan["datasets"] == {"beauty": {"display": "Beauty"}, "ml-1m": {"display": "ML-1M"}}
    assert plan["verdicts"] is True
    assert plan["settings"]["beauty"]["sasrec"]["training"]["max_epochs"] == 400
    assert not set(CLOCK) & set(plan["settings"]["beauty"]["sasrec"]["training"])
    assert "training" not in plan["settings"]["beauty"]["diffurec.delta_0.01"], "nothing is trained there"
    assert all(cell["method"] in plan["settings"][cell["dataset"]] for cell in plan["cells"])
    names = {cell.method for cell in grid.cells}
    assert {name for each in plan["sweeps"] for name in each["cells"]} <= names


def test_when_to_save_and_stop_changes_no_digest_and_reaches_the_job_apart():
    plain = Grid(config(overrides={"sasrec": {"training": {"max_epochs": 3}}}))
    clock = {"time_budget_seconds": 60, "checkpoint_seconds": 5}
    timed = Grid(config(overrides={"all": {"training": clock}, "sasrec": {"training": {"max_epochs": 3}}}))
    assert digests(timed) == digests(plain)
    assert [timed.deciding_overrides(m) for m in ("sasrec", "diffurec")] == [
        plain.deciding_overrides(m) for m in ("sasrec", "diffurec")
    ]
    assert plain.clock() == {} and timed.clock() == {"sasrec": clock, "diffurec": clock}
    assert timed.settings("beauty", "sasrec")["training"]["time_budget_seconds"] == 60
    assert digests(Grid(config(overrides={"all": {"training": {"max_epochs": 4}}}))) != digests(plain)
    with pytest.raises(ValueError, match="time_budget_seconds: -1"):
        Grid(config(overrides={"all": {"training": {"time_budget_seconds": -1}}}))


def test_a_demonstration_is_planned_as_one():
    assert Grid(config(analysis={"cutoffs": [5], "audit": {"verdicts": False}})).plan()["verdicts"] is False


def test_a_check_of_the_evaluation_runs_but_competes_in_no_table():
    """The oracle is a cell of the grid; as a contestant it would be the best of every column."""
    grid = Grid(config(grid=[{"datasets": ["ml-1m"], "methods": ["floor.oracle", "sasrec"], "seeds": [1]}]))
    assert {cell.method for cell in grid.cells} == {"floor.oracle", "sasrec"}
    assert {cell["method"] for cell in grid.plan()["cells"]} == {"sasrec"}
