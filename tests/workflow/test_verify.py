"""Damaged runs are named, and nothing sound is deleted with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import cli
from tests.workflow.toy_run import SMALL, argv, flip, one_error
from workflow.scripts import train, verify

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda run: flip(run / "ranks.npz", 100), "digest differs"),
        (lambda run: flip(run / "weights.safetensors", -1), "not what the run had when it finished"),
        (lambda run: (run / "ranks.npz").unlink(), "cannot be read"),
        (lambda run: (run / "record.json").write_text("{"), "not a readable run record"),
        (
            lambda run: (run / "record.json").write_text(
                (run / "record.json").read_text().replace('"HR@10": 0', '"HR@10": 1')
            ),
            "metrics are not those of its ranks",
        ),
    ],
)
def test_verify_names_a_damaged_run_and_deletes_it_if_told(sequences, tmp_path, capsys, spoil, reason):
    for seed in ("seed1", "seed2"):
        command = argv(sequences, tmp_path / "toy" / seed)
        command[command.index("--out") + 1] = str(tmp_path / "runs" / "toy" / "sasrec" / seed)
        assert cli.run(train.main, command) == 0
    bad = tmp_path / "runs" / "toy" / "sasrec" / "seed2"
    spoil(bad)
    capsys.readouterr()
    assert cli.run(verify.main, ["--runs", str(tmp_path / "runs")]) == 1
    printed = capsys.readouterr().out
    assert reason in printed and str(bad) in printed and "2 runs checked, 1 damaged" in printed
    assert cli.run(verify.main, ["--runs", str(tmp_path / "runs"), "--delete"]) == 0
    assert [path.name for path in bad.iterdir()] == [".finished"]
    assert (bad.with_name("seed1") / "record.json").exists()
    assert cli.run(verify.main, ["--runs", str(tmp_path / "runs")]) == 0


def test_what_verify_deletes_comes_back_from_a_sound_copy(sequences, undisturbed, tmp_path, caplog):
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    (tmp_path / "run").rename(tmp_path / "seed1")
    (tmp_path / "seed1" / "ranks.npz").unlink()
    assert cli.run(verify.main, ["--runs", str(tmp_path), "--delete"]) == 0
    (tmp_path / "seed1").rename(tmp_path / "run")
    caplog.clear()
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "its result is taken" in caplog.text
    assert (tmp_path / "run" / "ranks.npz").read_bytes() == undisturbed


def test_a_run_that_failed_after_an_older_one_had_finished_is_not_damaged(sequences, tmp_path, capsys):
    """The folder still keeps the older run's weights, which are not those of the failed one."""
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    diverging = {**SMALL, "model": {**SMALL["model"], "learning_rate": 1e30}}
    assert cli.run(train.main, argv(sequences, tmp_path, diverging)) == 0
    (tmp_path / "run").rename(tmp_path / "seed1")
    assert (tmp_path / "seed1" / ".finished" / "weights.safetensors").exists()
    assert cli.run(verify.main, ["--runs", str(tmp_path)]) == 0
    assert "1 runs checked, 0 damaged" in capsys.readouterr().out


def test_verify_of_no_folder_is_one_error(tmp_path, capfd):
    assert cli.run(verify.main, ["--runs", str(tmp_path / "absent")]) == 1
    assert "no such folder" in one_error(capfd)


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "results/reference").glob("**/runs")), ids=lambda path: path.parent.name
)
def test_committed_records_are_those_of_their_ranks(folder, capsys):
    assert verify.main(["--runs", str(folder)]) == 0
    assert not capsys.readouterr().out.startswith("0 runs")
