"""The benchmark of what varies on a GPU: says so without one; with one, the deterministic mode varies in nothing."""

import json
import subprocess

import pytest
import torch

import benchmarks.__main__ as every
from benchmarks import gpu_determinism
from harness import cli

TINY = ["--methods", "sasrec", "--runs", "2", "--epochs", "1", "--users", "60", "--items", "40"]


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "record.json"
    assert cli.run(gpu_determinism.main, ["--out", str(out)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: no GPU: torch sees no CUDA device")
    assert not out.exists()


def test_all_benchmarks_leave_it_out_without_a_gpu(monkeypatch, capsys):
    ran = []
    finished = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(every.subprocess, "run", lambda command: ran.append(command[-1]) or finished)
    monkeypatch.setattr(every, "visible_devices", lambda: [])
    assert every.main([]) == 0
    assert "benchmarks.mmd" in ran and "benchmarks.gpu_determinism" not in ran
    assert "gpu_determinism: left out, there is no GPU" in capsys.readouterr().out
    assert every.main(["gpu_determinism"]) == 0 and "benchmarks.gpu_determinism" in ran


def test_one_run_is_no_comparison(capsys):
    assert cli.run(gpu_determinism.main, ["--device", "cpu", "--runs", "1"]) == 1
    assert "one run shows no difference" in capsys.readouterr().err


def test_the_record_says_how_many_results_differ(tmp_path):
    """On the CPU nothing differs, in either mode."""
    out = tmp_path / "record.json"
    assert gpu_determinism.main([*TINY, "--device", "cpu", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    found = record["methods"]["sasrec"]
    assert set(found) == {"deterministic", "default"} and record["environment"]["device"] == "cpu"
    for name, mode in found.items():
        assert (mode["runs"], mode["different_ranks"], mode["different_weights"]) == (2, 1, 1)
        assert mode["share_of_users_whose_rank_varies"] == 0
        assert mode["deterministic_in_records"] == [name == "deterministic"]


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_deterministic_mode_gives_one_result_on_a_gpu(tmp_path):
    out = tmp_path / "record.json"
    methods = ["--methods", *gpu_determinism.METHODS]
    assert gpu_determinism.main([*TINY, *methods, "--runs", "3", "--out", str(out)]) == 0
    for found in json.loads(out.read_text())["methods"].values():
        mode = found["deterministic"]
        assert (mode["different_ranks"], mode["different_weights"]) == (1, 1)
        assert mode["deterministic_in_records"] == [True]
