"""Faults on the way of one run: full and read-only disks, no memory, no time, damaged files, two writers."""

from __future__ import annotations

import contextlib
import errno
import json
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
from harness.checkpoint import CheckpointFolder
from harness.digest import file_sha256
from harness.ranking import BLOCK, Evaluator
from harness.record import read_record
from harness.synthetic import random_walk
from workflow.scripts import progress, train, verify

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "model": {"embedding_dim": 4, "max_len": 6, "batch_size": 64},
    "training": {"max_epochs": 3, "checkpoint_seconds": 0},
}


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sequences.npz"
    random_walk(num_users=60, num_items=20, min_length=4, max_length=9).save(path)
    return path


def argv(sequences, folder, changes=SMALL, *more):
    found = ["--sequences", str(sequences), "--dataset", "toy", "--method", "sasrec", "--seed", "1"]
    found += ["--compute", '{"device": "cpu", "threads": 1}', "--overrides", json.dumps(changes)]
    return [*found, "--out", str(folder / "run"), "--checkpoints", str(folder / "checkpoints"), *more]


@pytest.fixture(scope="module")
def undisturbed(sequences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert cli.run(train.main, argv(sequences, folder)) == 0
    return (folder / "run" / "ranks.npz").read_bytes()


def one_error(capfd) -> str:
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error:", "Traceback"))]
    assert len(lines) == 1 and lines[0].startswith("error:"), lines
    return lines[0]


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


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda run: flip(run / "ranks.npz", 100), "digest differs"),
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
    assert [path.name for path in bad.iterdir()] == [".finished"] and (
        tmp_path / "runs/toy/sasrec/seed1/record.json"
    ).exists()
    assert cli.run(verify.main, ["--runs", str(tmp_path / "runs")]) == 0


def test_verify_of_no_folder_is_one_error(tmp_path, capfd):
    assert cli.run(verify.main, ["--runs", str(tmp_path / "absent")]) == 1
    assert "no such folder" in one_error(capfd)


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "results/reference").glob("**/runs")), ids=lambda path: path.parent.name
)
def test_committed_records_are_those_of_their_ranks(folder, capsys):
    assert verify.main(["--runs", str(folder)]) == 0
    assert not capsys.readouterr().out.startswith("0 runs")
