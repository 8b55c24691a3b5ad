"""The DAG as a user runs it: plans, the tiny configuration from data to report, and mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from harness.settings import merge
from tests.workflow.test_add_baseline import MODULE

pytestmark = pytest.mark.slow  # each Snakemake process takes seconds to start


def planned(output: str) -> dict[str, int]:
    """Jobs per rule from the table that a dry run prints."""
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)\s*$", output, flags=re.M)}


def test_full_paper_plan_needs_no_network(checkout, python_m):
    """`snakemake -n` on the full grid lists a job per cell."""
    result = python_m("snakemake", "-n", "--cores", "8", "--resources", "gpu=2")
    assert result.returncode == 0, result.stderr
    jobs = planned(result.stdout + result.stderr)
    config = yaml.safe_load((checkout / "config" / "config.yaml").read_text())
    cells = {
        (dataset, method, seed)
        for block in config["grid"]
        for dataset in block["datasets"]
        for method in block["methods"]
        for seed in block["seeds"]
    }
    assert jobs["train"] + jobs.get("reevaluate", 0) >= len(cells) > 0
    assert jobs["preprocess"] == len({dataset for dataset, _, _ in cells})


def test_numbers_inside_a_command_line_value_are_numbers(checkout, python_m):
    """Snakemake reads what is nested in --config as text; the job it starts must get the number."""
    cell = "results/tiny/runs/toy/sasrec/seed1/record.json"
    nested = ("--config", "compute={device: cpu, threads: 1}")
    result = python_m("snakemake", "--configfile", "config/tiny.yaml", "--cores", "1", *nested, "--", cell)
    assert result.returncode == 0, result.stderr[-4000:]
    assert json.loads((checkout / cell).read_text())["environment"]["threads"] == 1


def test_runs_can_be_asked_for_without_tables(python_m):
    """What goes to a cluster that shares no folders: records and statistics, nothing that reads a folder."""
    result = python_m("snakemake", "-n", "--configfile", "config/tiny.yaml", "--cores", "1", "--", "runs")
    jobs = planned("".join(_streams(result)))
    assert jobs == {"preprocess": 1, "train": 2, "runs": 1, "total": 4}


def test_tiny_workflow_from_data_to_report(checkout, python_m):
    """The whole DAG runs, is complete, has nothing left to do, and reruns exactly what a change touches."""
    options = ("--configfile", "config/tiny.yaml", "--cores", "2", "--resources", "gpu=0")
    result = python_m("snakemake", *options)
    assert result.returncode == 0, result.stderr[-4000:]
    out = checkout / "results" / "tiny"
    assert (out / "report.html").stat().st_size > 10_000
    records = sorted(out.glob("runs/*/*/*/record.json"))
    assert [json.loads(path.read_text())["status"] for path in records] == ["completed"] * len(records)
    assert not list(out.glob("checkpoints/*/*/*/*"))
    again = python_m("snakemake", *options, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr

    model = checkout / "baselines" / "sasrec.py"
    text = model.read_text()
    model.write_text(text + "\n# a comment changes nothing\n")
    assert "Nothing to be done" in "".join(_streams(python_m("snakemake", *options, "-n")))
    model.write_text(text + "\nEXTRA = 1\n")
    jobs = planned("".join(_streams(python_m("snakemake", *options, "-n"))))
    methods = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())["grid"]
    seeds = len(methods[0]["seeds"])
    assert jobs["train"] == seeds, "only SASRec's cells use the edited module"
    model.write_text(text)

    tiny = checkout / "config" / "tiny.yaml"
    tiny.write_text(tiny.read_text().replace("checkpoint_seconds: 0", "time_budget_seconds: 9000"))
    assert "time_budget_seconds" in tiny.read_text()
    assert "Nothing to be done" in "".join(_streams(python_m("snakemake", *options, "-n")))

    elsewhere = ("--config", "mirror=config", "datasets={toy: {licence: another, display: Other}}")
    jobs = planned("".join(_streams(python_m("snakemake", *options, "-n", *elsewhere))))
    assert not {"download", "preprocess", "train"} & set(jobs), "what decides no data reruns none of it"

    records[0].unlink()
    jobs = planned("".join(_streams(python_m("snakemake", *options, "-n"))))
    assert jobs["train"] == 1, "a deleted record is run again"

    # A run whose folder was deleted is made again; one that only seems old, as after a copy without dates, is not.
    shutil.copy(records[0].parent / ".finished" / "record.json", records[0])
    ranks = [path.with_name("ranks.npz").read_bytes() for path in records[:2]]
    shutil.rmtree(records[1].parent)
    os.utime(out / "data" / "toy" / "sequences.npz")
    shutil.rmtree(checkout / ".snakemake")  # else the digests of inputs that it holds would tell
    targets = [str(path.relative_to(checkout)) for path in records[:2]]
    assert planned("".join(_streams(python_m("snakemake", *options, "-n", "--", *targets))))["train"] == 2
    assert python_m("snakemake", *options, "--", *targets).returncode == 0
    logs = [
        (out / "logs" / "train" / f"{cell}.log").read_text()
        for cell in (path.parent.relative_to(out / "runs") for path in records[:2])
    ]
    assert ["its result is taken" in log for log in logs] == [True, False] and "epoch 1" in logs[1]
    assert [path.with_name("ranks.npz").read_bytes() for path in records[:2]] == ranks
    assert "Nothing to be done" in "".join(_streams(python_m("snakemake", *options, "-n", "--", *targets)))


def test_data_with_a_new_date_rerun_nothing(checkout, python_m):
    """Raw files may be large: dates alone must not decide."""
    raw, options = checkout / "raw.txt", ("--configfile", "config/tiny.yaml", "own.yaml", "--cores", "1")
    raw.write_text("".join(f"{user} {' '.join(map(str, range(1, 60)))}\n" for user in range(1, 7000)))
    assert raw.stat().st_size > 1e6, "smaller ones Snakemake looks into by itself"
    (checkout / "own.yaml").write_text(yaml.safe_dump({"datasets": {"toy": {"file": "raw.txt"}}}))
    target = "results/tiny/data/toy/stats.json"
    assert python_m("snakemake", *options, "--", target).returncode == 0
    os.utime(raw)
    assert "Nothing to be done" in "".join(_streams(python_m("snakemake", *options, "-n", "--", target)))
    raw.write_text(raw.read_text().replace("1 2 3", "2 1 3", 1))
    assert "preprocess" in planned("".join(_streams(python_m("snakemake", *options, "-n", "--", target))))


def _streams(result: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    return result.stdout, result.stderr


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"compute": {"thread": 1}}, r"unknown key 'thread' \(did you mean 'threads'\?\)"),
        ({"outputs": "x"}, r"unknown key 'outputs' \(did you mean 'output'\?\)"),
        ({"grid": [{"datasets": ["toy"], "methods": ["sasrek"], "seeds": [1]}]}, r"unknown method 'sasrek'.*'sasrec'"),
        ({"grid": [{"datasets": ["tou"], "methods": ["sasrec"], "seeds": [1]}]}, r"unknown dataset 'tou'.*'toy'"),
        ({"overrides": {"sasrec": {"training": {"epochs": 3}}}}, r"unknown key 'epochs'.*'max_epochs'"),
        (
            {"datasets": {"shop": {"display": "Shop", "formt": "inter", "format": "inter"}}},
            r"datasets\.shop: unknown key 'formt' \(did you mean 'format'\?\)",
        ),
        (
            {"datasets": {"toy": {"file": "absent.txt"}}},
            r"datasets\.toy\.file: absent\.txt: no such file; put it there or correct the path",
        ),
        ({"mirror": "nowhere"}, r"mirror: the folder nowhere does not exist"),
        ({"overrides": {"sasrec": {"modle": {}}}}, r"unknown key 'modle' \(did you mean 'model'\?\)"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(checkout, python_m, edit, message):
    config = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())
    (checkout / "broken.yaml").write_text(yaml.safe_dump(merge(config, edit)))
    result = python_m("snakemake", "-n", "--configfile", "broken.yaml", "--cores", "1")
    assert result.returncode != 0
    said = "".join(_streams(result))
    assert re.search(message, " ".join(said.split())), said
    assert "Traceback" not in said


def test_a_raw_file_put_there_by_hand_is_never_deleted(checkout, python_m):
    """Neither one's own file that lies among the downloads, nor one whose addresses do not work."""
    content = (checkout / "tests/data/toy.sequences.txt").read_bytes()
    for name in ("own", "placed"):
        path = checkout / "resources" / "raw" / name / "toy.txt"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    shared = {"display": "Toy", "format": "sequences"}
    datasets = {
        "own": shared | {"file": "resources/raw/own/toy.txt"},
        "placed": shared | {"urls": ["http://127.0.0.1:9/toy.txt"]},
    }
    config = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text()) | {"datasets": datasets}
    config["grid"] = [{"datasets": ["own", "placed"], "methods": ["sasrec"], "seeds": [1]}]
    (checkout / "mine.yaml").write_text(yaml.safe_dump(config))
    targets = [f"results/tiny/data/{name}/sequences.npz" for name in datasets]
    result = python_m("snakemake", "--configfile", "mine.yaml", "--cores", "1", "--forceall", "--", *targets)
    assert result.returncode == 0, result.stderr[-4000:]
    for name in datasets:
        assert (checkout / "resources" / "raw" / name / "toy.txt").read_bytes() == content


def test_a_diverging_run_leaves_a_gap_and_the_rest_goes_on(checkout, python_m):
    """NaN losses are recorded as diverged; tables show the gap; the other method's cells are complete."""
    config = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())
    config["grid"] = [{"datasets": ["toy"], "methods": ["sasrec", "floor.popularity"], "seeds": [1]}]
    config["overrides"]["sasrec"]["model"]["learning_rate"] = 1e30
    config["overrides"].setdefault("all", {})
    (checkout / "nan.yaml").write_text(yaml.safe_dump(config))
    result = python_m("snakemake", "--configfile", "nan.yaml", "--cores", "2", "--resources", "gpu=0")
    assert result.returncode == 0, result.stderr[-4000:]
    out = checkout / "results" / "tiny"
    record = json.loads((out / "runs/toy/sasrec/seed1/record.json").read_text())
    assert record["status"] == "diverged" and "lower learning_rate" in record["reason"]
    assert f"no result: toy/sasrec/seed1: diverged, {record['reason']}" in result.stdout
    table = (out / "tables" / "table2.md").read_text()
    assert "diverged" in table


def test_a_run_that_was_short_of_memory_keeps_its_checkpoint(checkout, python_m):
    """Its record is deleted, as the documents say, and it goes on where it was."""
    short = "if self.began and Path('short').exists(): raise torch.cuda.OutOfMemoryError('pretended')"
    module = MODULE.replace("import torch\n", "from pathlib import Path\n\nimport torch\n", 1)
    module = module.replace(
        "def batches(self):", f"began = False\n\n    def batches(self):\n        {short}\n        self.began = True", 1
    )
    (checkout / "baselines" / "meanpool.py").write_text(module)
    (checkout / "config" / "methods" / "meanpool.yaml").write_text("builder: baselines.meanpool\n")
    config = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())
    config["grid"] = [{"datasets": ["toy"], "methods": ["meanpool"], "seeds": [1]}]
    config["overrides"] = {"all": {"training": {"max_epochs": 3, "checkpoint_seconds": 0.0}}}
    (checkout / "mean.yaml").write_text(yaml.safe_dump(config))
    options = ("--configfile", "mean.yaml", "--cores", "1", "--resources", "gpu=0", "--", "runs")
    out, record = checkout / "results" / "tiny", "runs/toy/meanpool/seed1/record.json"

    (checkout / "short").touch()
    assert python_m("snakemake", *options).returncode == 0
    assert json.loads((out / record).read_text())["status"] == "out_of_memory"
    assert [path.name for path in (out / "checkpoints/toy/meanpool/seed1").iterdir()] == ["epoch-000001.ckpt"]

    (checkout / "short").unlink()
    (out / record).unlink()
    assert python_m("snakemake", *options).returncode == 0
    found = json.loads((out / record).read_text())
    assert (found["status"], found["epochs_run"], found["resumes"]) == ("completed", 3, 1)
    assert not (out / "checkpoints/toy/meanpool/seed1").exists()
