"""The weights of a finished run, evaluated again: the same ranks, other settings, or one clear refusal."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import run
from harness.compute import Compute
from harness.run import reevaluate
from harness.run_files import RunFiles
from harness.split import leave_one_out
from harness.synthetic import random_walk
from tests.harness.cells import SPLIT, assert_failed, assert_same_ranks, job, ranks_in, trained


def test_evaluating_the_weights_again_gives_the_same_ranks(first, tmp_path):
    record, files = first
    again = RunFiles(tmp_path / "again", trained=False)
    found = reevaluate(job(record.method), SPLIT, again, Compute(), files.weights)
    assert_same_ranks(files, again)
    assert found.metrics == record.metrics
    assert found.epochs_run == 0 and found.best_epoch is None and found.train_seconds == 0
    assert sorted(path.name for path in again.folder.iterdir()) == ["ranks.npz", "record.json"], "no second weights"


def test_evaluating_under_other_settings_changes_ranks_only_there(tmp_path, first):
    record, files = first
    without = job(record.method, evaluation={"test_inputs_without_first": True})
    again = RunFiles(tmp_path / "again", trained=False)
    reevaluate(without, SPLIT, again, Compute(), files.weights)
    ours, theirs = ranks_in(files), ranks_in(again)
    np.testing.assert_array_equal(ours["val_kept"], theirs["val_kept"])
    assert (ours["test_kept"] != theirs["test_kept"]).any()


def test_wrong_weights_are_refused(first, tmp_path):
    record, files = first
    other_size = replace(job(record.method), settings=job(record.method, model={"embedding_dim": 4}).settings)
    cut, absent = tmp_path / "cut.safetensors", tmp_path / "absent.safetensors"
    cut.write_bytes(files.weights.read_bytes()[:200])
    for one, weights in ((other_size, files.weights), (job(record.method), cut), (job(record.method), absent)):
        with pytest.raises(
            ValueError, match=r"\.safetensors: not the weights of .* delete its folder to train it again"
        ):
            reevaluate(one, SPLIT, RunFiles(tmp_path / "out", trained=False), Compute(), weights)
    assert not (tmp_path / "out" / "record.json").exists()


def test_weights_that_changed_since_the_run_finished_are_refused(tmp_path):
    """Their format has no checksum: a flipped bit is another weight and no error."""
    _, files = trained(tmp_path / "run", checkpoints=tmp_path / "checkpoints")
    content = bytearray(files.weights.read_bytes())
    content[-1] ^= 64
    files.weights.write_bytes(content)
    again = RunFiles(tmp_path / "again", trained=False)
    with pytest.raises(ValueError, match="weights.safetensors: not what sasrec had when it finished"):
        reevaluate(job(), SPLIT, again, Compute(), files.weights)
    assert not again.record.exists()


def test_weights_of_other_data_are_refused(first, tmp_path):
    record, files = first
    other = leave_one_out(random_walk(num_users=40, num_items=30, seed=9))
    with pytest.raises(ValueError, match="record.json: trained on other data"):
        reevaluate(job(record.method), other, RunFiles(tmp_path, trained=False), Compute(), files.weights)


def test_evaluating_the_weights_of_a_diverged_run_is_recorded_as_diverged(tmp_path):
    origin, files = trained(tmp_path / "origin", job(model={"learning_rate": 1e30}))
    again = RunFiles(tmp_path / "again", trained=False)
    record = reevaluate(job(), SPLIT, again, Compute(), files.weights)
    assert_failed(record, again, "diverged")
    assert origin.method in record.reason and origin.reason in record.reason


@pytest.mark.parametrize("step", ["build_learner", "load_weights"])
def test_out_of_gpu_memory_is_recorded_when_weights_are_evaluated(first, tmp_path, monkeypatch, step):
    def out_of_memory(*_, **__):
        raise torch.cuda.OutOfMemoryError("pretended")

    monkeypatch.setattr(run, step, out_of_memory)
    again = RunFiles(tmp_path / "again", trained=False)
    record = reevaluate(job(), SPLIT, again, Compute(), first[1].weights)
    assert_failed(record, again, "out_of_memory")
