"""Records become one table; a damaged, moved or foreign one never slips in."""

import json

import numpy as np
import pytest

from analysis.load import MixedRunsError, load_runs
from analysis.plan import read_plan
from harness.record import CorruptRecordError


def test_figures_are_recomputed_from_ranks_at_any_cutoff(grid):
    path = grid.write()
    table = load_runs(grid.runs).table([5, 7])
    kept = table[table["protocol"] == "kept"].set_index("metric")
    assert kept.loc["HR@5", "value"] == 0.5
    assert kept.loc["NDCG@5", "value"] == pytest.approx((1 + 1 / 2) / 4)
    assert kept.loc["NDCG@7", "value"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert set(table["protocol"]) == {"kept", "hidden"}
    assert set(table["record"]) == {str(path)}


def test_runs_come_in_order_of_dataset_method_and_seed(grid):
    for method, seed in (("sasrec", 10), ("sasrec", 2), ("caser", 1)):
        grid.write(method, seed)
    assert [run.key for run in load_runs(grid.runs).runs] == [
        "beauty/caser/seed1",
        "beauty/sasrec/seed2",
        "beauty/sasrec/seed10",
    ]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="absent: no such folder of runs"):
        load_runs(tmp_path / "absent")


def damage_json(path):
    path.write_text("{", encoding="utf-8")


def damage_ranks(path):
    ranks = path.parent / "ranks.npz"
    ranks.write_bytes(ranks.read_bytes()[:-20])


def remove_ranks(path):
    (path.parent / "ranks.npz").unlink()


def state_another_figure(path):
    values = json.loads(path.read_text())
    values["metrics"]["test_kept"]["HR@5"] = 0.75
    path.write_text(json.dumps(values))


def drop_a_user(path):
    path.write_text(path.read_text().replace('"num_users": 4', '"num_users": 5'))


def rename_the_folder(path):
    path.parent.rename(path.parent.with_name("seed7"))


def forge_the_digest(path):
    """Damage the ranks and state the damaged file's digest, so that only reading it can tell."""
    from harness.digest import file_sha256

    old = json.loads(path.read_text())["ranks_sha256"]
    damage_ranks(path)
    path.write_text(path.read_text().replace(old, file_sha256(path.parent / "ranks.npz")))


DAMAGES = (
    damage_json,
    damage_ranks,
    remove_ranks,
    state_another_figure,
    drop_a_user,
    rename_the_folder,
    forge_the_digest,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused_by_name(grid, damage):
    grid.write(seed=1)
    damage(grid.write(seed=2))
    with pytest.raises(CorruptRecordError, match=r"seed[27]/(record\.json|ranks\.npz)"):
        load_runs(grid.runs)


@pytest.mark.parametrize("damage", DAMAGES)
def test_partial_results_report_a_damaged_run_and_go_on(grid, damage):
    grid.write(seed=1)
    damage(grid.write(seed=2))
    runs = load_runs(grid.runs, skip_corrupt=True)
    assert [run.record.seed for run in runs.runs] == [1]
    assert len(runs.problems) == 1 and runs.problems[0].message


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("data", {"data_sha256": "e" * 64}),
        ("code", {"code_digest": "e" * 64}),
        ("settings", {"settings_sha256": "e" * 64}),
        ("precision", {"environment": {"device": "cpu", "precision": "bf16"}}),
        ("precision", {"environment": {"device": "NVIDIA H200"}}),
        ("precision", {"environment": {"device": "cpu", "float32_matmul_precision": "medium"}}),
    ],
)
def test_runs_of_different_kinds_are_refused_naming_both(grid, kind, other):
    grid.write(seed=1)
    grid.write(seed=2, **other)
    with pytest.raises(MixedRunsError) as caught:
        load_runs(grid.runs)
    assert "seed1/record.json" in str(caught.value) and "seed2/record.json" in str(caught.value)
    assert f"different {kind} (" in str(caught.value) and "--allow-mixed" in str(caught.value)


def test_what_is_wrong_with_runs_that_are_not_planned_refuses_nothing(grid):
    """Seeds left of a larger grid under older settings, and a damaged one, once stopped every table."""
    grid.write(seed=1)
    grid.write(seed=2, settings_sha256="e" * 64)
    grid.write(seed=3, data_sha256="e" * 64)
    (grid.runs / "beauty/sasrec/seed3/record.json").write_text("{")
    runs = load_runs(grid.runs, planned={"beauty/sasrec/seed1"})
    assert [run.key for run in runs.runs] == ["beauty/sasrec/seed1"] and runs.runs[0].method == "sasrec"
    assert [run.key for run in runs.outside] == ["beauty/sasrec/seed2"]
    assert [problem.key for problem in runs.problems] == ["beauty/sasrec/seed3"] and not runs.mixed_data


@pytest.mark.parametrize(("digest", "word"), [("data_sha256", "data"), ("code_digest", "code")])
def test_allowed_mixtures_appear_under_separate_names(grid, digest, word):
    grid.write(seed=1)
    grid.write(seed=2, **{digest: "e" * 64})
    runs = load_runs(grid.runs, allow_mixed=True)
    own = {"data": "d", "code": "c"}[word] * 8
    assert runs.methods_of("beauty", "sasrec") == [f"sasrec [{word} {own}]", f"sasrec [{word} eeeeeeee]"]
    assert all(len(runs.of("beauty", name)) == 1 for name in runs.methods_of("beauty", "sasrec"))


def test_seeds_on_different_gpus_in_one_precision_belong_together(grid):
    grid.write(seed=1, environment={"device": "NVIDIA H200", "precision": "bf16"})
    grid.write(seed=2, environment={"device": "NVIDIA H100", "precision": "bf16"})
    assert load_runs(grid.runs).methods_of("beauty", "sasrec") == ["sasrec"]


def test_two_methods_on_different_data_are_refused(grid):
    grid.write("sasrec")
    grid.write("caser", data_sha256="e" * 64)
    with pytest.raises(MixedRunsError, match="different data"):
        load_runs(grid.runs)
    assert load_runs(grid.runs, allow_mixed=True).mixed_data == {"beauty"}


def test_code_may_differ_between_methods_and_data_between_datasets(grid):
    grid.write("sasrec")
    grid.write("caser", code_digest="e" * 64, settings_sha256="f" * 64)
    grid.write("sasrec", dataset="toys", data_sha256="e" * 64, settings_sha256="f" * 64)
    assert len(load_runs(grid.runs).runs) == 3


def test_a_failed_run_has_no_figures(grid):
    grid.write(status="diverged", reason="loss was nan", metrics={})
    runs = load_runs(grid.runs)
    assert runs.table([5]).empty and not runs.runs[0].record.completed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown: \\['colour'\\]"),
        ({"datasets": {}}, "datasets \\['beauty'\\]"),
        ({"sweeps": [{"name": "a", "field": "f", "method": "m", "values": [1], "cells": []}]}, "1 values but 0 cells"),
        ({"cells": [{"dataset": "beauty"}]}, "not a plan"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_key(grid, change, message):
    with pytest.raises(ValueError, match=f"plan.json.*{message}"):
        read_plan(grid.plan([("sasrec", 1)], **change))


def test_methods_of_one_name_are_told_apart_by_key(grid):
    plan = read_plan(grid.plan([("a", 1), ("b", 1), ("c", 1)], displays={"a": "Same", "b": "Same"}))
    assert plan.labels() == {"a": "Same (a)", "b": "Same (b)", "c": "c"}


def test_ranks_below_one_are_damage(grid):
    grid.write(ranks=np.array([0, 1, 2]), metrics={})
    with pytest.raises(CorruptRecordError, match="not one rank >= 1"):
        load_runs(grid.runs)


@pytest.mark.parametrize(
    ("best", "run", "cut_off"),
    [(20, 20, True), (18, 20, True), (14, 20, True), (10, 20, False), (4, 10, False), (None, 20, False)],
)
def test_a_run_was_cut_off_if_patience_was_left_when_its_epochs_ended(grid, best, run, cut_off):
    """Validated after epochs 2, 6, 10, 14, 18 and at the end; patience for three of them."""
    training = {"max_epochs": 20, "first_eval": 2, "eval_every": 4, "patience": 3}
    grid.write(best_epoch=best, epochs_run=run, settings={"model": {}, "training": training})
    assert load_runs(grid.runs).runs[0].cut_off is cut_off
