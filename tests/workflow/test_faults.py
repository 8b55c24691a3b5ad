"""Faults on the way of one run: full and read-only disks, no memory, no time, bad options, two writers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import harness.run
from harness import cli
from harness.ranking import BLOCK, Evaluator
from harness.record import read_record
from harness.synthetic import random_walk
from tests.workflow.toy_run import SMALL, argv, one_error
from workflow.scripts import progress, train, verify

ROOT = Path(__file__).resolve().parents[2]


def failing(number, *, at):
    """Stand-in for os.replace, by which every output is put in place: fails for names that contain `at`."""
    original = os.replace

    def replace(source, target):
        if at in Path(target).name:
            raise OSError(number, os.strerror(number))
        original(source, target)

    return replace


STEPS = ["epoch-000002", "history.csv", "weights.safetensors", "ranks.npz", "record.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_fails_at_any_step(sequences, undisturbed, tmp_path, monkeypatch, capfd, caplog, step, number):
    """One line, no record, nothing half-written; the same command afterwards goes on to the same ranks."""
    monkeypatch.setattr(os, "replace", failing(number, at=step))
    assert cli.run(train.main, argv(sequences, tmp_path)) == 1
    message = one_error(capfd)
    assert os.strerror(number) in message and str(tmp_path) in message
    names = [path.name for path in tmp_path.rglob("*")]
    assert "run" in names and "checkpoints" in names and "record.json" not in names
    assert not [name for name in names if name.startswith((step, "."))]
    monkeypatch.undo()
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert "resumed after epoch" in caplog.text
    assert (tmp_path / "run" / "ranks.npz").read_bytes() == undisturbed


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 8, 16, 24, 32, 40, 48])
def test_a_disk_that_is_really_full(sequences, undisturbed, full_disk, capfd, room):
    """Wherever the room (KiB) ends, the run is finished with the right ranks, or it is one error and no record."""
    filler = full_disk / "filler"
    filler.write_bytes(bytes((64 - room) * 1024 - 4096) if room else bytes(60 * 1024))
    code = cli.run(train.main, argv(sequences, full_disk))
    record = full_disk / "run" / "record.json"
    if code:
        assert "No space left on device" in one_error(capfd)
        assert not record.exists() and not list((full_disk / "run").glob(".*.*"))
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(full_disk)], check=True)
        assert cli.run(train.main, argv(sequences, full_disk)) == 0
    assert read_record(record).completed
    assert (full_disk / "run" / "ranks.npz").read_bytes() == undisturbed


def test_a_log_on_a_full_disk_is_no_finished_run(sequences, tmp_path):
    command = [sys.executable, "-m", "workflow.scripts.train", *argv(sequences, tmp_path)]
    with open("/dev/full", "w") as full:
        code = subprocess.run(command, cwd=ROOT, stdout=full, stderr=full).returncode
    assert code != 0


def out_of_memory(*_, **__):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory (pretended)")


def test_out_of_gpu_memory_while_training(sequences, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(harness.run, "fit", out_of_memory)
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0  # the others of the grid go on
    record = read_record(tmp_path / "run" / "record.json")
    assert record.status == "out_of_memory" and "batch_size" in record.reason
    assert "lower model.batch_size" in caplog.text


def test_a_run_that_was_short_of_memory_is_made_again_if_told(sequences, undisturbed, tmp_path, monkeypatch, capsys):
    """Another process may have held the memory; a run that diverged would only diverge again."""
    seed = tmp_path / "seed1"
    command = argv(sequences, seed)
    command[command.index("--out") + 1] = str(seed)
    with monkeypatch.context() as patched:
        patched.setattr(harness.run, "fit", out_of_memory)
        assert cli.run(train.main, command) == 0
    capsys.readouterr()
    assert cli.run(verify.main, ["--runs", str(tmp_path)]) == 0
    assert "1 runs checked, 0 damaged, 1 out of memory" in capsys.readouterr().out and seed.exists()
    assert cli.run(verify.main, ["--runs", str(tmp_path), "--delete-out-of-memory"]) == 0
    assert seed.exists() and not list(seed.glob("*.*"))
    assert cli.run(train.main, command) == 0
    assert (seed / "ranks.npz").read_bytes() == undisturbed


@pytest.mark.parametrize("what", ["code", "settings"])
def test_a_checkout_that_changed_after_planning(sequences, tmp_path, capfd, what):
    """Snakemake notes what it planned with; a run of anything else would be taken for that ever after."""
    assert cli.run(train.main, argv(sequences, tmp_path, SMALL, f"--expect-{what}", "0" * 64)) == 1
    assert f"the {what} changed after this run was planned" in one_error(capfd)
    assert not (tmp_path / "run").exists()


def test_a_time_budget_without_checkpoints_is_refused(sequences, tmp_path, capfd):
    short = {**SMALL, "training": {**SMALL["training"], "time_budget_seconds": 3600}}
    command = argv(sequences, tmp_path, short)
    del command[command.index("--checkpoints") : command.index("--checkpoints") + 2]
    assert cli.run(train.main, command) == 1
    assert "time_budget_seconds without --checkpoints" in one_error(capfd)


@pytest.mark.parametrize("option", ["--overrides", "--compute", "--clock"])
def test_an_option_that_is_no_json_is_named(sequences, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        train.main([*argv(sequences, tmp_path), option, "{model: 1}"])
    assert f"argument {option}: " in capsys.readouterr().err


def test_out_of_gpu_memory_while_evaluating_halves_the_batch_and_says_so(caplog):
    sequences = random_walk(num_users=300, num_items=20)
    target_U = np.ones(300, dtype=np.int64)
    sizes = []

    def score(history_BL, user_B, noise):
        sizes.append(len(user_B))
        if len(user_B) > 2 * BLOCK:
            out_of_memory()
        return torch.arange(21.0).repeat(len(user_B), 1) + user_B[:, None]

    evaluator = Evaluator(sequences, target_U, seed=1, part="test", max_len=5, batch_size=256)
    ranks = evaluator.ranks(score)
    assert sizes[:2] == [256, 128] and len(ranks.kept_U) == 300
    assert f"evaluation goes on with {2 * BLOCK} users at a time" in caplog.text


def test_an_evaluation_that_cannot_shrink_further_is_recorded(sequences, tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "_rank_batch", out_of_memory)
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert read_record(tmp_path / "run" / "record.json").status == "out_of_memory"


def test_out_of_time_stops_resumably_with_its_own_exit_code(sequences, undisturbed, tmp_path, capfd):
    short = {**SMALL, "training": {**SMALL["training"], "time_budget_seconds": 1e-9}}
    codes = [cli.run(train.main, argv(sequences, tmp_path, short)) for _ in range(2)]
    assert codes == [train.OUT_OF_TIME] * 2
    errors = capfd.readouterr().err
    assert "stopped: wall-clock budget used up" in errors and "Traceback" not in errors
    assert not (tmp_path / "run" / "record.json").exists()
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    assert (tmp_path / "run" / "ranks.npz").read_bytes() == undisturbed


def test_a_second_process_takes_the_result_of_the_first(sequences, undisturbed, tmp_path):
    """The training that outlived a killed Snakemake is waited for; its result is not computed again."""
    command = [sys.executable, "-m", "workflow.scripts.train", *argv(sequences, tmp_path)]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not progress.is_held(tmp_path / "run") and first.poll() is None:
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)  # alive and holding the lock, as long as it suits us
    second = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    line = second.stderr.readline()
    while "waiting for it to end" not in line and second.poll() is None:
        line = second.stderr.readline()
    assert progress.is_held(tmp_path / "run")
    first.send_signal(signal.SIGCONT)
    errors = second.communicate(timeout=120)[1]
    assert first.wait(timeout=120) == second.returncode == 0
    first.stderr.close()
    assert "epoch 1" not in errors, "the second trained although the first had finished"
    assert (tmp_path / "run" / "ranks.npz").read_bytes() == undisturbed


@pytest.mark.parametrize(("precision", "is_taken"), [("fp32", True), ("bf16", False)])
def test_a_second_process_takes_no_result_of_another_precision(
    sequences, tmp_path, caplog, monkeypatch, precision, is_taken
):
    caplog.set_level("INFO")
    assert cli.run(train.main, argv(sequences, tmp_path)) == 0
    caplog.clear()
    monkeypatch.setattr(train, "sole_writer", lambda folder: contextlib.nullcontext(True))  # after a wait
    second = argv(sequences, tmp_path)
    second[second.index("--compute") + 1] = f'{{"device": "cpu", "threads": 1, "precision": "{precision}"}}'
    assert cli.run(train.main, second) == 0
    assert ("epoch 1" in caplog.text) == (not is_taken)
    assert read_record(tmp_path / "run" / "record.json").environment["precision"] == precision
