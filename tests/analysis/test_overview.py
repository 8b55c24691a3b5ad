"""The README's figures: written from files, and the ones that stand there are those of the committed runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from analysis import overview, table_formats
from analysis.audit import report
from analysis.audit.paper_audit import audit_paper
from analysis.audit.paper_tables import load_paper
from analysis.load import load_runs
from analysis.measured import NOT_RUN
from analysis.plan import read_plan
from analysis.tables import main as write_tables
from harness.record import read_record
from tests.analysis.conftest import TRAINING

ROOT = Path(__file__).parents[2]


@pytest.fixture
def part(grid, tmp_path):
    """The part for one unfinished and one finished run of Table 2's rows, and a floor beside them."""
    training = {"max_epochs": 5, "first_eval": 1, "eval_every": 1, "patience": 2}
    settings = {"model": {}, "training": training | {"eval_users": None}}
    place = {"device": "cpu", "cpu": "Some CPU", "threads": 1, "precision": "fp32"}
    grid.write("aligndiff", best_epoch=4, settings=settings, environment=place)
    grid.write("sasrec", 1, settings=settings, environment=place, hidden=(1, 1, 1, 1))
    grid.write("sasrec", 2, settings=settings, environment=place, hidden=(1, 1, 1, 1), train_seconds=120.0)
    grid.write("floor.markov", settings=settings, environment=place, best_epoch=None, epochs_run=0)
    cells = [("aligndiff", 1), ("sasrec", 1), ("sasrec", 2), ("floor.markov", 1), ("floor.popularity", 1)]
    plan = grid.plan(cells, displays={"aligndiff": "AlignDiff", "sasrec": "SASRec", "floor.markov": "Markov"})
    (tmp_path / "data").mkdir(exist_ok=True)
    options = ["--runs", str(grid.runs), "--plan", str(plan), "--data", str(tmp_path / "data")]
    write_tables([*options, "--out", str(tmp_path / "tables")])
    tables = table_formats.read(tmp_path / "tables")
    return overview.overview(tables, ["one finding"], load_runs(grid.runs), read_plan(plan))


def lines(part: str, label: str) -> list[str]:
    return [line for line in part.splitlines() if line.startswith(f"| {label}")]


def test_measured_stands_beside_printed_and_a_run_that_was_cut_off_is_marked(part):
    assert lines(part, "AlignDiff |")[0].startswith("| AlignDiff | 75.00 / 45.83† | 8.13 / 4.93 |")
    assert lines(part, "SASRec |")[0].startswith("| SASRec | 75.00 ± 0.00 / 45.83 ± 0.00 | 6.26 / 3.23 |")
    assert "| not run | 7.91 / 4.75 |" in lines(part, "DiffuRec |")[0]
    assert "- one finding" in part.splitlines()


def test_what_is_not_in_the_papers_table_stands_below_and_only_if_measured(part):
    shown = part.splitlines()
    order = [lines(part, name)[0] for name in ("AlignDiff |", "*Floors", "Markov |")]
    assert [shown.index(line) for line in order] == sorted(shown.index(line) for line in order)
    assert not lines(part, "floor.popularity")


def test_hidden_figures_stand_in_a_fold_without_gaps_or_printed_ones(part):
    fold = part.partition("seen items hidden</summary>")[2].partition("</details>")[0]
    assert [line for line in fold.splitlines() if line.startswith("| SASRec |")] == [
        "| SASRec | 100.00 ± 0.00 / 100.00 ± 0.00 | not run | not run |"
    ]
    assert "| Markov |" in fold and "DiffuRec" not in fold


def test_costs_are_per_method_and_untrained_methods_have_none(part):
    assert lines(part, "SASRec, Beauty") == [
        "| SASRec, Beauty | 1, 2 | 3 | 5 | 2, all users | 1 min, 2 min | fp32 | Some CPU, 1 thread |"
    ]
    assert len(lines(part, "AlignDiff, Beauty")) == 1 and not lines(part, "Markov, ")


def test_runs_with_other_settings_than_planned_are_listed_together(grid):
    for method, seed, patience in (("sasrec", 1, 3), ("sasrec", 2, 3), ("stosa", 1, 3), ("caser", 1, 20)):
        grid.write(method, seed, settings={"training": TRAINING | {"patience": patience}})
    settings = {"beauty": dict.fromkeys(("sasrec", "stosa", "caser"), {"training": TRAINING})}
    plan = read_plan(grid.plan([("sasrec", 1), ("sasrec", 2), ("stosa", 1), ("caser", 1)], settings=settings))
    _, listed = overview.deviations_listed(load_runs(grid.runs), plan)
    assert listed == "- training.patience 3 instead of 20: sasrec on Beauty (seeds 1, 2), stosa on Beauty (seed 1)"


def test_nothing_is_said_where_all_runs_are_as_planned_or_no_settings_are(grid):
    grid.write("sasrec", settings={"training": TRAINING})
    planned = [{"settings": {"beauty": {"sasrec": {"training": TRAINING}}}}, {}]
    plans = [read_plan(grid.plan([("sasrec", 1)], **fields)) for fields in planned]
    assert [overview.deviations_listed(load_runs(grid.runs), plan) for plan in plans] == [[], []]


@pytest.mark.slow
def test_the_readme_shows_the_committed_runs(tmp_path):
    """After new runs: snakemake --configfile config/reference.yaml, then python -m analysis.overview."""
    plan, tables = tmp_path / "plan.json", tmp_path / "tables"
    snakemake = (sys.executable, "-m", "snakemake", "--configfile", "config/reference.yaml", "--cores", "1")
    moved = ("--config", f"output={tmp_path}", "--directory", str(ROOT), "--nolock")
    subprocess.run([*snakemake, *moved, "--", str(plan), str(tables)], check=True, cwd=ROOT, env=os.environ)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    runs = load_runs(ROOT / "results/reference/runs")
    made = overview.overview(table_formats.read(tables), [], runs, read_plan(plan))
    comparison, rest = made.split("**The audit in short.**")
    assert comparison in readme and rest[rest.index("<details>") :] in readme


def test_the_committed_findings_are_those_of_todays_audit():
    """Of the printed tables; what stands there of runs changes with them and is not looked at."""
    committed = (ROOT / overview.FINDINGS).read_text(encoding="utf-8")
    found = [finding for finding in audit_paper(load_paper()).findings if finding.is_alarm]
    assert len(found) > 50
    assert not [finding.id for finding in found if report.as_line(finding) not in committed]


def test_every_committed_run_is_in_the_readme():
    """With its seed among the costs, or, where nothing was trained, with a figure under its dataset."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme if line.startswith("|")]
    datasets = yaml.safe_load((ROOT / "config/datasets.yaml").read_text(encoding="utf-8"))["datasets"]
    head = next(row for row in rows if "*printed*" in row)
    costs = rows[next(place for place, row in enumerate(rows) if "patience" in row) :]
    records = [read_record(path) for path in (ROOT / "results/reference/runs").glob("*/*/*/record.json")]
    missing = []
    for record in records:
        dataset = datasets[record.dataset]["display"]
        cost = next((row[1].split(", ") for row in costs if row[0] == f"{record.display}, {dataset}"), [])
        figure = next((row[head.index(dataset)] for row in rows if row[0] == record.display), NOT_RUN)
        if figure == NOT_RUN or (record.epochs_run and str(record.seed) not in cost):
            missing.append((record.dataset, record.method, record.seed))
    assert records and not missing
