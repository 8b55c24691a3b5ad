"""Every speed benchmark runs, on a handful of users, and leaves a record that names command and machine."""

import json
import subprocess
import sys

import pytest

from analysis.tables import main as write_tables
from benchmarks import analysis_500, evaluation, profiles, ranking, sasrec, scale, training, whole
from benchmarks.measuring import data, tables, targets
from benchmarks.measuring.timing import RECORDS, Cost, clock, precisions, ratio, spread
from harness.digest import ROOT


@pytest.fixture(autouse=True)
def same_allocator(monkeypatch):
    """The benchmarks prepare a whole process; leave this one's heap alone."""
    monkeypatch.setattr("harness.compute.keep_freed_memory", lambda: None)


@pytest.fixture
def run(tmp_path):
    """Call a benchmark's command line on eight users and return its record."""
    data.generated(8, 30, 9).save(tmp_path / "sequences.npz")

    def call(module, *arguments):
        out = tmp_path / f"{module.__name__.rpartition('.')[2]}.json"
        argv = ["--quick", "--sequences", str(tmp_path / "sequences.npz"), "--out", str(out), *arguments]
        assert module.main(argv) == 0
        record = json.loads(out.read_text())
        assert record["command"].startswith("python -m benchmarks.") and str(tmp_path) not in out.read_text()
        assert record["environment"]["cpu"] and record["environment"]["threads"] == 1
        return record

    return call


def test_training(run):
    found = run(training, "--methods", "diffurec.keys")["methods"]["diffurec.keys"]
    assert set(found["step"]) == {"reference_way", "reference_way_default_allocator", "fast_fp32", "fast_bf16"}
    assert all(times["processor"]["median"] > 0 for times in found["speedup"].values())


def test_evaluation(run):
    found = run(evaluation, "--methods", "aligndiff")["methods"]["aligndiff"]
    for precision in precisions():
        assert found["call"][f"fast_{precision}"]["chains"] == 8
    assert found["call"]["reference_way"]["chains"] == pytest.approx(8 / 32)


def test_sasrec(run):
    paths = {"prefixes_fp32", "prefixes_fp32_default_allocator"}
    assert set(run(sasrec)["paths"]) == paths | {f"sequences_{precision}" for precision in precisions()}


def test_whole(run):
    found = run(whole, "--threads", "1", "--methods", "diffurec.keys")["methods"]["diffurec.keys"]
    assert found["precision"] == precisions()[-1]
    assert found["epoch"]["wall_seconds"]["median"] > 0 and found["evaluation"]["rounds"] == 1


def test_profiles(run):
    found = run(profiles, "--methods", "aligndiff")["methods"]["aligndiff"]["paths"]
    assert {f"{part}_{precision}" for part in ("fast", "evaluation") for precision in precisions()} <= set(found)
    for path in found.values():
        assert sum(path["percent_by_kind"].values()) == pytest.approx(100, abs=1)
        assert path["percent_by_kind"]["matrix products"] > 0


def test_ranking(run, monkeypatch):
    monkeypatch.setattr(ranking, "memory_of", lambda way, options: [0])
    assert "count" in run(ranking)["ways"]


def test_scale(run, monkeypatch):
    monkeypatch.setattr(scale, "in_a_process", lambda size, options: scale.measure((50, 60, 9), options))
    rows = run(scale, "--steps", "1", "--ranked", "20")["rows"]
    assert rows[0]["items"] == 60 and rows[0]["peak_memory_bytes"] > 0


def test_ratios_are_taken_round_by_round():
    slow, fast = [Cost(4, 4, 0), Cost(9, 9, 0)], [Cost(2, 1, 0), Cost(3, 1, 0)]
    assert ratio(slow, fast)["processor"] == {"median": 6.5, "least": 4.0, "most": 9.0}
    assert ratio(slow, fast, per_slow=2)["wall"] == {"median": 1.25, "least": 1.0, "most": 1.5}
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


def test_a_turn_of_several_steps_is_their_average():
    steps = iter([Cost(1, 4, 3), Cost(3, 2, 4)])
    assert training.averaged(lambda: next(steps), 2)() == Cost(2, 3, 3)


def test_two_threads_are_judged_by_the_wall():
    assert clock({"threads": 1}) == "processor" and clock({"threads": 2}) == "wall"
    record = json.loads((RECORDS / "ranking.json").read_text())
    found = record["ways"]["count"]
    assert found["origin"]["environment"]["threads"] == 2
    (row,) = [row for row in targets.rows({"ranking": record}) if row[0] == "ranking of all users"]
    assert row[2] == f"{found['wall_seconds']['median']:.1f} s of two cores"


def test_extra_memory_is_what_a_call_takes():
    """In a process of its own: the heap of this one may have room for it."""
    asked = "from benchmarks.measuring.timing import extra_memory; print(extra_memory(lambda: bytearray(64 << 20)))"
    told = subprocess.run((sys.executable, "-c", asked), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 60 << 20 < int(told) < 96 << 20


def test_generated_data_has_the_shape_asked_for():
    sequences = data.generated(3000, 500, 10)
    assert sequences.num_users == 3000 and sequences.num_items == 500
    assert sequences.lengths.min() >= 5 and sequences.lengths.mean() == pytest.approx(10, rel=0.05)


def test_precisions_are_shown_over_seeds_with_where_each_came_from():
    place = {"precision": "fp32", "cpu": "A CPU", "threads": 1, "torch": "2.13"}
    method = {"dataset": "d", "method": "m", "seeds": [5, 4], "difference": 0.5, "low": -1, "high": 2}
    method |= {"first": 5, "first_std": 0.5, "second": 5.5, "second_std": 1}
    sides = [[place], [place | {"precision": "bf16", "emulated_products": True}]]
    record = {"command": "python -m x", "metric": "NDCG@10", "sides": sides, "methods": [method]}
    assert "| seeds | fp32 | bf16 |" in tables.precision(record)
    assert "| m, d | 5 and 4 | 5.00 ± 0.50 | 5.50 ± 1.00 | +0.50 [-1.00, +2.00] |" in tables.precision(record)
    assert tables.source(record) == (
        "`python -m x`; fp32 on A CPU, threads: 1, torch 2.13; bf16 by rounding to it on A CPU, threads: 1, torch 2.13."
    )


def test_the_readme_shows_the_records():
    """After a new record: python -m benchmarks.measuring.tables"""
    assert tables.markdown() in tables.README.read_text(encoding="utf-8")


def test_the_made_up_grid_of_the_analysis_benchmark_is_one_that_the_analysis_reads(tmp_path):
    shared = analysis_500.write_grid(tmp_path, 2)
    assert write_tables([*shared, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
