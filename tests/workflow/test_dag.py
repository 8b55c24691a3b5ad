"""The DAG as a user runs it: plans, the tiny configuration from data to report, and mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # each Snakemake process takes seconds to start


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the workflow needs, so that a test may edit code and leave outputs."""
    for name in ("Snakefile", "config", "workflow", "profiles", "harness", "aligndiff", "baselines", "analysis"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    shutil.copytree(ROOT / "tests" / "data", tmp_path / "tests" / "data")
    shutil.copy(ROOT / "environment.yml", tmp_path)
    return tmp_path


def run_in(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)


def planned(output: str) -> dict[str, int]:
    """Jobs per rule from the table that a dry run prints."""
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)\s*$", output, flags=re.M)}


def test_full_paper_plan_needs_no_network(checkout):
    """`snakemake -n` on the full grid lists a job per cell."""
    result = run_in(checkout, "-n", "--cores", "8", "--resources", "gpu=2")
    assert result.returncode == 0, result.stderr
    jobs = planned(result.stdout + result.stderr)
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    cells = {
        (dataset, method, seed)
        for block in config["grid"]
        for dataset in block["datasets"]
        for method in block["methods"]
        for seed in block["seeds"]
    }
    assert jobs["train"] + jobs.get("reevaluate", 0) >= len(cells) > 0
    assert jobs["preprocess"] == 3


def test_tiny_workflow_from_data_to_report(checkout):
    """The whole DAG runs, is complete, has nothing left to do, and reruns exactly what a change touches."""
    options = ("--configfile", "config/tiny.yaml", "--cores", "2", "--resources", "gpu=0")
    result = run_in(checkout, *options)
    assert result.returncode == 0, result.stderr[-4000:]
    out = checkout / "results" / "tiny"
    assert (out / "report.html").stat().st_size > 10_000
    records = sorted(out.glob("runs/*/*/*/record.json"))
    assert [json.loads(path.read_text())["status"] for path in records] == ["completed"] * len(records)
    assert not list(out.glob("checkpoints/*/*/*/*"))
    again = run_in(checkout, *options, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr

    model = checkout / "baselines" / "sasrec.py"
    text = model.read_text()
    model.write_text(text + "\n# a comment changes nothing\n")
    assert "Nothing to be done" in "".join(_streams(run_in(checkout, *options, "-n")))
    model.write_text(text + "\nEXTRA = 1\n")
    jobs = planned("".join(_streams(run_in(checkout, *options, "-n"))))
    methods = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())["grid"]
    seeds = len(methods[0]["seeds"])
    assert jobs["train"] == seeds, "only SASRec's cells use the edited module"
    model.write_text(text)

    records[0].unlink()
    jobs = planned("".join(_streams(run_in(checkout, *options, "-n"))))
    assert jobs["train"] == 1, "a deleted record is run again"


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
        ({"overrides": {"sasrec": {"modle": {}}}}, r"unknown key 'modle' \(did you mean 'model'\?\)"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(checkout, edit, message):
    config = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())
    (checkout / "broken.yaml").write_text(yaml.safe_dump({**config, **edit}))
    result = run_in(checkout, "-n", "--configfile", "broken.yaml", "--cores", "1")
    assert result.returncode != 0
    assert re.search(message, " ".join(result.stderr.split())), result.stderr
    assert "Traceback" not in result.stderr


def test_a_diverging_run_leaves_a_gap_and_the_rest_goes_on(checkout):
    """NaN losses are recorded as diverged; tables show the gap; the other method's cells are complete."""
    config = yaml.safe_load((checkout / "config" / "tiny.yaml").read_text())
    config["grid"] = [{"datasets": ["toy"], "methods": ["sasrec", "floor.popularity"], "seeds": [1]}]
    config["overrides"]["sasrec"]["model"]["learning_rate"] = 1e30
    config["overrides"].setdefault("all", {})
    (checkout / "nan.yaml").write_text(yaml.safe_dump(config))
    result = run_in(checkout, "--configfile", "nan.yaml", "--cores", "2", "--resources", "gpu=0")
    assert result.returncode == 0, result.stderr[-4000:]
    out = checkout / "results" / "tiny"
    record = json.loads((out / "runs/toy/sasrec/seed1/record.json").read_text())
    assert record["status"] == "diverged" and record["reason"]
    table = (out / "tables" / "table2.md").read_text()
    assert "diverged" in table
