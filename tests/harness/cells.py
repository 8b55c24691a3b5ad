"""One small cell of the grid, trained in a second, for tests of what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from safetensors.torch import load_file

from harness.compute import Compute
from harness.methods import load_method
from harness.record import read_ranks, read_record
from harness.run import Job, progress_line, train
from harness.run_files import RunFiles
from harness.split import leave_one_out
from harness.synthetic import random_walk

SPLIT = leave_one_out(random_walk(num_users=80, num_items=40, min_length=4, max_length=20), dataset="toy")
SMALL = {
    "sasrec": {"embedding_dim": 8, "max_len": 8, "batch_size": 32},
    "diffurec": {"embedding_dim": 8, "max_len": 8, "batch_size": 64, "num_blocks": 1, "num_heads": 2, "num_steps": 3},
}


def job(name="sasrec", *, seed=1, **changes):
    settings = replace(load_method(name), model=SMALL[name], datasets={}).resolved(
        "toy", {"training": {"max_epochs": 2, "eval_every": 1}}, changes
    )
    return Job(
        dataset="toy",
        method=name,
        display=name,
        variant_of=None,
        seed=seed,
        settings=settings,
        code_digest="code",
    )


def trained(folder, one=None, checkpoints=None):
    files = RunFiles(folder)
    return train(one or job(), SPLIT, files, Compute(), checkpoints), files


def ranks_in(files):
    return read_ranks(files.record, read_record(files.record))


def assert_same_ranks(files, others):
    ours, theirs = ranks_in(files), ranks_in(others)
    assert set(ours) == set(theirs) == {"test_kept", "test_hidden", "val_kept", "val_hidden"}
    for name, rank_U in ours.items():
        np.testing.assert_array_equal(rank_U, theirs[name])


def assert_failed(record, files, status):
    assert record.status == status and record.reason and not record.completed
    assert read_record(files.record) == record
    assert ranks_in(files) == {} and record.metrics == {}
    assert status in progress_line(record)
    if files.trained:
        assert load_file(files.weights) == {}
        assert files.history.read_text().splitlines() == ["epoch"]
