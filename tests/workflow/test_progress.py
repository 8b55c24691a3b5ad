"""Where each cell of a configuration stands, and the time that is left."""

from __future__ import annotations

import json

import pytest
import yaml

from harness.grid import Cell
from harness.lock import sole_writer
from harness.synthetic import random_walk
from workflow.scripts import progress, train
from workflow.scripts.forecast import Cost

COST = Cost(epochs=10, epoch_seconds=6.0, final_seconds=4.0, memory_bytes=0, disk_bytes=0, actions=100)


@pytest.mark.parametrize(
    ("epoch", "running", "expected"), [(None, 0.0, 64.0), (5, 0.0, 34.0), (5, 50.0, 14.0), (9, 900.0, 0.0)]
)
def test_time_left_of_a_cell(epoch, running, expected):
    one = progress.Standing(Cell("toy", "sasrec", 1), "running", epoch, running)
    assert progress.seconds_left(one, COST) == pytest.approx(expected)


def test_every_state_is_told(tmp_path, capsys):
    """Four cells: one finished, one running, one interrupted, one not begun."""
    out, sequences = tmp_path / "out", tmp_path / "sequences.npz"
    random_walk(num_users=30, num_items=20).save(sequences)
    overrides = {"model": {"embedding_dim": 4, "max_len": 4}, "training": {"max_epochs": 1}}
    config = {
        "output": str(out),
        "grid": [{"datasets": ["toy"], "methods": ["sasrec"], "seeds": [1, 2, 3, 4]}],
        "datasets": {"toy": {"display": "Toy", "format": "sequences", "expected": {"actions": 500}}},
        "sweeps": [],
        "overrides": {"sasrec": overrides},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    runs = out / "runs" / "toy" / "sasrec"
    argv = ["--sequences", str(sequences), "--dataset", "toy", "--method", "sasrec", "--seed", "1"]
    argv += ["--compute", '{"device": "cpu", "threads": 1}', "--overrides", json.dumps(overrides)]
    assert train.main([*argv, "--out", str(runs / "seed1")]) == 0
    saved = out / "checkpoints" / "toy" / "sasrec" / "seed3"
    saved.mkdir(parents=True)
    (saved / "epoch-000007.ckpt").touch()
    capsys.readouterr()
    with sole_writer(runs / "seed2"):
        argv = ["--configfile", str(tmp_path / "config.yaml"), "--records", str(out)]
        assert progress.main(argv) == 0
    printed = capsys.readouterr().out
    assert "4 cells: 1 done, 0 changed, 0 failed, 0 damaged, 1 running, 1 interrupted, 1 waiting" in printed
    assert "interrupted toy/sasrec/seed3, epoch 7 saved" in printed
    assert "running     toy/sasrec/seed2, for 0 min" in printed
    assert "with 1 at a time" in printed and "without an estimate" not in printed

    config["overrides"]["sasrec"]["training"]["max_epochs"] = 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert progress.main(argv) == 0
    printed = capsys.readouterr().out
    assert "changed     toy/sasrec/seed1: had training.max_epochs 1 instead of 2\n" in printed
    assert "4 cells: 0 done, 1 changed, 0 failed" in printed
