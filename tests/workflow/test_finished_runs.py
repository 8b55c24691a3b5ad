"""What a run keeps of its end, and when it is taken instead of training again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness import cli
from harness.checkpoint import CheckpointFolder
from harness.digest import file_sha256
from harness.record import read_record
from harness.synthetic import random_walk
from tests.workflow.toy_run import SMALL, argv, flip, one_error
from workflow.scripts import train

ROOT = Path(__file__).resolve().parents[2]


def without_outputs(folder):
    """What a restarted Snakemake leaves of a run that it does not know to be finished."""
    for path in (folder / "run").iterdir():
        if path.is_file():
            path.unlink()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_run_that_ended_unheard_is_taken_and_not_trained_again(sequences, tmp_path, caplog):
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    outputs = contents(tmp_path / "run")
    without_outputs(tmp_path)
    caplog.clear()
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "its result is taken" in caplog.text and "epoch 1" not in caplog.text
    kept = contents(tmp_path / "run" / ".finished")
    assert contents(tmp_path / "run") == {name: kept[name] for name in outputs} == outputs
    assert set(kept) - set(outputs) == {"sha256.json"}


@pytest.mark.parametrize("spoil", ["ranks.npz", "weights.safetensors", "history.csv", "record.json", "sha256.json"])
def test_a_kept_run_that_is_damaged_is_trained_again(sequences, undisturbed, tmp_path, caplog, spoil):
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    without_outputs(tmp_path)
    kept = tmp_path / "run" / ".finished" / spoil
    flip(kept, 100)
    caplog.clear()
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "its result is taken" not in caplog.text and "epoch 1" in caplog.text
    assert (tmp_path / "run" / "ranks.npz").read_bytes() == undisturbed


def test_a_kept_run_with_a_file_gone_is_trained_again(sequences, tmp_path, caplog):
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    without_outputs(tmp_path)
    (tmp_path / "run" / ".finished" / "weights.safetensors").unlink()
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "its result is taken" not in caplog.text


@pytest.mark.parametrize("moment", range(4))
def test_a_taking_back_that_was_cut_short_is_done_again(sequences, tmp_path, caplog, monkeypatch, moment):
    """Killed at any of its four files, and the outputs deleted once more: what is kept is still there."""
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    outputs = contents(tmp_path / "run")
    without_outputs(tmp_path)
    calls, link = [], os.link

    def dying(source, target):
        calls.append(target)
        if len(calls) > moment:
            raise KeyboardInterrupt
        link(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", dying)
        with pytest.raises(KeyboardInterrupt):
            train.main(argv(sequences, tmp_path))
    without_outputs(tmp_path)
    (tmp_path / "run" / ".weights.123.safetensors").write_text("half")  # what kill -9 would leave
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "epoch 1" not in caplog.text.partition("its result is taken")[2]
    assert contents(tmp_path / "run") == outputs


@pytest.mark.parametrize("other", ["seed", "code", "data"])
def test_a_kept_run_of_another_identity_is_not_taken(sequences, tmp_path, caplog, monkeypatch, other):
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    without_outputs(tmp_path)
    again = argv(sequences, tmp_path)
    if other == "seed":
        again[again.index("--seed") + 1] = "2"
    elif other == "code":
        monkeypatch.setattr(train, "code_digest", lambda *_: "another")
    else:
        random_walk(num_users=70, num_items=30, seed=9).save(tmp_path / "other.npz")
        again[again.index("--sequences") + 1] = str(tmp_path / "other.npz")
    assert cli.run(train.main, again) == 0
    assert "its result is taken" not in caplog.text


def test_a_kept_run_of_another_precision_is_not_taken(sequences, tmp_path, caplog):
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    without_outputs(tmp_path)
    other = argv(sequences, tmp_path)
    other[other.index("--compute") + 1] = '{"device": "cpu", "threads": 1, "precision": "bf16"}'
    assert cli.run(train.main, other) == 0
    assert "its result is taken" not in caplog.text
    assert read_record(tmp_path / "run" / "record.json").environment["precision"] == "bf16"


def test_settings_changed_and_changed_back_before_the_new_run_ended_cost_nothing(sequences, tmp_path, caplog):
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    outputs = contents(tmp_path / "run")
    without_outputs(tmp_path)
    changed = {**SMALL, "model": {**SMALL["model"], "dropout": 0.4}}
    begun = {**changed, "training": {**SMALL["training"], "time_budget_seconds": 1e-9}}
    assert cli.run(train.main, argv(sequences, tmp_path, begun)) == train.OUT_OF_TIME
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "its result is taken" in caplog.text and contents(tmp_path / "run") == outputs
    assert not (tmp_path / "checkpoints").exists(), "the checkpoints of the run that was given up are gone"
    without_outputs(tmp_path)
    assert cli.run(train.main, argv(sequences, tmp_path, changed)) == 0
    assert contents(tmp_path / "run")["ranks.npz"] != outputs["ranks.npz"], "this one is another run"
    without_outputs(tmp_path)
    caplog.clear()
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "its result is taken" not in caplog.text, "only the newest is kept"


def test_a_gpu_that_is_gone_does_not_cost_what_it_has_finished(sequences, undisturbed, tmp_path, capfd, monkeypatch):
    """The driver was updated, say: "auto" would train everything again on the CPU, and replace it."""
    monkeypatch.setattr(train.gpu, "visible_devices", list)
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    run, kept = tmp_path / "run", tmp_path / "run" / ".finished"
    record = json.loads((kept / "record.json").read_text())
    record["environment"]["device"] = "NVIDIA H200"
    (kept / "record.json").write_text(json.dumps(record))
    digests = json.loads((kept / "sha256.json").read_text())
    digests["record.json"] = file_sha256(kept / "record.json")
    (kept / "sha256.json").write_text(json.dumps(digests))
    (run / "record.json").unlink(missing_ok=True)  # Snakemake does it before a rerun

    again = argv(sequences, tmp_path)
    again[again.index("--compute") + 1] = '{"device": "auto", "threads": 1}'
    assert cli.run(train.main, again) == 1
    assert "was finished on a GPU (NVIDIA H200), and none is visible now" in one_error(capfd)
    assert json.loads((kept / "record.json").read_text())["environment"]["device"] == "NVIDIA H200"
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0, "a CPU that is asked for is one that is wanted"
    assert (run / "ranks.npz").read_bytes() == undisturbed


def test_a_gpu_that_is_gone_does_not_cost_what_it_has_begun(sequences, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(train.gpu, "visible_devices", list)
    CheckpointFolder(tmp_path / "checkpoints", identity="its", device="cuda").save(9, {"epoch": 9})
    command = argv(sequences, tmp_path)
    command[command.index("--compute") + 1] = '{"device": "auto", "threads": 1}'
    assert cli.run(train.main, command) == 1
    assert "was begun on a GPU (cuda), and none is visible now" in one_error(capfd)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch-000009.ckpt"]
