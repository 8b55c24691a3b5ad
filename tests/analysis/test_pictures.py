"""Table 5 and the figures: which runs they show, under which names, and with room for them."""

import csv
import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import figures, mmd_run, mmd_table, tables
from analysis.audit.paper_tables import load_paper
from analysis.load import MixedRunsError, load_runs
from analysis.mmd_run import IDENTITY
from analysis.plan import read_plan
from analysis.table_specs import OTHER_SETTINGS
from tests.analysis.conftest import TRAINING
from workflow.scripts.represent import sample


@pytest.fixture
def measured_mmd(grid):
    """Two seeds of both models with representations; returns the plan and the folder of MMD files."""
    rng = np.random.default_rng(0)
    for method, noise in (("diffurec", 1.0), ("aligndiff", 0.3)):
        for seed in (1, 2):
            record = grid.write(method, seed)
            truth = rng.standard_normal((60, 4))
            npz = grid.folder / "representations" / "beauty" / method / f"seed{seed}.npz"
            npz.parent.mkdir(parents=True, exist_ok=True)
            np.savez(npz, generated=truth + noise * rng.standard_normal((60, 4)), truth=truth)
            out = grid.folder / "mmd" / "beauty" / method / f"seed{seed}.json"
            arguments = ["--representations", str(npz), "--record", str(record), "--out", str(out)]
            assert mmd_run.main([*arguments, "--permutations", "9"]) == 0
    return grid.plan([(m, s) for m in ("diffurec", "aligndiff") for s in (1, 2)]), grid.folder / "mmd"


def test_mmd_files_become_table_5_and_its_figure(grid, measured_mmd):
    plan, folder = measured_mmd
    values = json.loads((folder / "beauty/aligndiff/seed1.json").read_text())
    assert {*IDENTITY, "results", "mixing", "num_users"} <= set(values) and len(values["results"]) == 15
    out = grid.folder / "out"
    shared = ["--runs", str(grid.runs), "--plan", str(plan), "--mmd", str(folder)]
    assert tables.main([*shared, "--data", str(grid.folder), "--out", str(out)]) == 0
    text = (out / "table5.md").read_text()
    line = next(line for line in text.split("\n") if line.startswith("| aligndiff"))
    assert "±" in line and "(0.33 ± 0.03)" in line and "not run" not in line
    with open(out / "table5_runs.csv", encoding="utf-8") as file:
        mine = {row["column"]: row for row in csv.DictReader(file) if row["label"] == "aligndiff, seed 1, cosine"}
    of_view = {result["multiplier"]: result for result in values["results"] if result["view"] == "cosine"}
    for column, value in (
        ("bandwidth", of_view[1]["bandwidth"]),
        ("biased", 1e3 * of_view[1]["biased"]),
        ("p", of_view[1]["p"]),
        ("unbiased at 0.25 x bandwidth", 1e3 * of_view[0.25]["unbiased"]),
    ):
        assert float(mine[column]["measured"]) == pytest.approx(value)
        assert mine[column]["records"] == str(folder / "beauty/aligndiff/seed1.json")
    with open(out / "table5.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["column"]) == ("beauty", "cosine")]
    marks = {row["method"]: row["mark"] for row in rows}
    assert {marks["aligndiff"], marks["diffurec"]} == {"best", "second"}
    pictures = ["--representations", str(grid.folder / "representations"), "--tables", str(out)]
    assert figures.main([*shared, *pictures, "--out", str(out)]) == 0
    assert (out / "table5_mmd.svg").is_file() and (out / "figure4_beauty.pdf").is_file()


def test_figure_4_takes_another_reading_of_diffurec_if_that_is_what_was_run(grid, measured_mmd):
    planned = [("diffurec.keys", 2), ("diffurec.keys", 10), ("aligndiff", 1)]
    plan, folder = read_plan(grid.plan(planned)), grid.folder / "representations"
    keys = (folder / "beauty" / "diffurec").rename(folder / "beauty" / "diffurec.keys")
    shutil.copy(keys / "seed1.npz", keys / "seed10.npz")  # before seed2 as text
    ((_, entry),) = figures.draw_projections(folder, plan)
    assert "Runs: diffurec.keys seed2" in entry.caption, "the first planned seed"
    shutil.rmtree(folder / "beauty" / "diffurec.keys")
    assert not list(figures.draw_projections(folder, plan))


def test_a_sample_in_half_precision_reads_as_single(tmp_path):
    generated, truth = sample(np.ones((9, 2), np.float32), np.arange(18, dtype=np.float32).reshape(9, 2), 4)
    np.savez(tmp_path / "r.npz", generated=generated, truth=truth)
    found = mmd_run.read_representations(tmp_path / "r.npz")
    assert [part.dtype for part in found] == [np.float32] * 2
    assert found[1].shape == (4, 2) and len(np.unique(found[1])) == 8


def test_table_5_marks_what_was_cut_off(grid, measured_mmd):
    (rows,) = (block.rows for block in mmd_table.build(*_cut_off(grid, measured_mmd)).blocks if block.is_measured)
    assert {row.method: "†" in row.cells[0].text for row in rows} == {"diffurec": False, "aligndiff": True}


def _cut_off(grid, measured_mmd):
    for seed in (1, 2):
        grid.write("aligndiff", seed, settings={"model": {}, "training": TRAINING | {"max_epochs": 5}})
    runs = load_runs(grid.runs)
    return mmd_table.read_folder(measured_mmd[1], runs), load_paper(), read_plan(measured_mmd[0])


def test_an_mmd_file_of_another_run_is_refused(grid, measured_mmd):
    grid.write("aligndiff", 1, settings_sha256="9" * 64)
    grid.write("aligndiff", 2, settings_sha256="9" * 64)
    with pytest.raises(MixedRunsError, match="aligndiff/seed1.json.*settings_sha256"):
        mmd_table.read_folder(measured_mmd[1], load_runs(grid.runs))


def test_an_mmd_file_of_a_run_that_is_gone_is_left_out(grid, measured_mmd):
    shutil.rmtree(grid.runs / "beauty" / "aligndiff" / "seed2")
    found = mmd_table.read_folder(measured_mmd[1], load_runs(grid.runs))
    assert [run.key for run in found if run.method == "aligndiff"] == ["beauty/aligndiff/seed1"]


def test_other_readings_stand_apart_in_table_5_and_are_never_best(grid, measured_mmd):
    """diffurec.keys, nearest of all, does not take the mark from the paper's two."""
    plan, folder = measured_mmd
    for seed in (1, 2):
        record = grid.write("diffurec.keys", seed)
        npz = grid.folder / "representations" / "beauty" / "aligndiff" / f"seed{seed}.npz"
        out = folder / "beauty" / "diffurec.keys" / f"seed{seed}.json"
        arguments = ["--representations", str(npz), "--record", str(record), "--out", str(out)]
        assert mmd_run.main([*arguments, "--permutations", "9"]) == 0
    plan = read_plan(grid.plan([(m, s) for m in ("diffurec", "aligndiff", "diffurec.keys") for s in (1, 2)]))
    block = mmd_table.build(mmd_table.read_folder(folder, load_runs(grid.runs)), load_paper(), plan).blocks[0]
    assert [row.method for row in block.rows] == ["diffurec", "aligndiff"]
    assert [(row.method, row.group) for row in block.others] == [("diffurec.keys", OTHER_SETTINGS)]
    assert not any(cell.mark for cell in block.others[0].cells)


def test_representations_must_match_in_shape(grid, tmp_path):
    np.savez(tmp_path / "r.npz", generated=np.ones((3, 2)), truth=np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"r.npz: shapes \(3, 2\) and \(4, 2\)"):
        mmd_run.read_representations(tmp_path / "r.npz")


def test_pictures_leave_out_what_the_plan_does(grid, measured_mmd):
    found = mmd_table.read_folder(measured_mmd[1], load_runs(grid.runs))
    assert len(list(figures.draw_mmd(found, read_plan(grid.plan([("diffurec", 1)]))))) == 1
    assert not list(figures.draw_mmd(found, read_plan(grid.plan([("sasrec", 1)]))))


def test_long_names_leave_room_for_the_bars(grid, measured_mmd, tmp_path):
    found = mmd_table.read_folder(measured_mmd[1], load_runs(grid.runs))
    plan = read_plan(grid.plan([("diffurec", 1), ("aligndiff", 1)]))
    one = next(run for run in found if run.seed == 1)
    many = [replace(one, method=f"AlignDiff (tuned), a long name {n}", cut_off=n == 1) for n in range(6)]
    cells = [replace(plan.cells[0], method=run.method, display=run.method, dataset=run.dataset) for run in many]
    plan = replace(plan, cells=tuple(cells))
    ((figure, entry),) = figures.draw_mmd(many, plan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib gives up on a layout with a warning
        figure.savefig(tmp_path / "bars.png")
    assert all(ax.get_position().width > 0.3 for ax in figure.axes)
    assert "name 1†" in str([text.get_text() for text in figure.legends[0].get_texts()]) and "†" in entry.caption


def test_differences_are_drawn_apart_for_each_method_that_is_compared(grid):
    plan = read_plan(grid.plan([("aligndiff", 1), ("aligndiff.tuned", 1), ("sasrec", 1)]))
    interval = {f"{name}_{end}": 1.0 for name in figures.COVERS for end in ("low", "high")}
    rows = [
        {"dataset": "beauty", "metric": "HR@10", "method": method, "rival_display": "SASRec", "difference": 1.0}
        | interval
        for method in ("aligndiff", "aligndiff.tuned")
    ]
    entries = [entry for _, entry in figures.draw_differences(pd.DataFrame(rows), plan)]
    assert [entry.slug for entry in entries] == ["differences_beauty_aligndiff", "differences_beauty_aligndiff.tuned"]
    names = [plan.labels()[row["method"]] for row in rows]
    assert all(entry.title.startswith(f"{name} minus") for entry, name in zip(entries, names, strict=True))


def test_a_sweep_is_drawn_from_planned_runs_alone(grid, monkeypatch):
    sweep = {"name": "w", "field": "guidance_weight", "values": [0.0, 1.0], "method": "aligndiff"}
    cells = ["aligndiff.w_0.0", "aligndiff.w_1.0"]
    for method in cells:
        grid.write(method, 1, (1, 1, 1, 1))
        grid.write(method, 2, (50, 50, 50, 50))
    drawn = []
    monkeypatch.setattr(figures.plots, "sweep_lines", lambda tidy, *_, **__: drawn.append(tidy))
    plan = read_plan(grid.plan([(method, 1) for method in cells], sweeps=[sweep | {"cells": cells}]))
    assert len(list(figures.draw_sweeps(load_runs(grid.runs), plan))) == 1
    assert [set(tidy["value"]) for tidy in drawn] == [{100.0}, {100.0}]


def test_a_gain_over_a_distance_that_is_not_above_zero_is_no_percentage(grid, measured_mmd):
    plan, folder = measured_mmd
    for path in folder.glob("beauty/diffurec/*.json"):  # as an unbiased estimate may come out
        values = json.loads(path.read_text())
        values["results"] = [result | {"unbiased": -1e-6} for result in values["results"]]
        path.write_text(json.dumps(values))
    out = grid.folder / "out"
    shared = ["--runs", str(grid.runs), "--plan", str(plan), "--mmd", str(folder)]
    assert tables.main([*shared, "--data", str(grid.folder), "--out", str(out)]) == 0
    line = next(line for line in (out / "table5.md").read_text().split("\n") if "AlignDiff below DiffuRec" in line)
    assert "rival not above zero" in line
