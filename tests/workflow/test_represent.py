"""What is exported for Table 5 and Figure 4 is what was ranked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from harness.synthetic import random_walk
from workflow.scripts import represent, train

SIZES = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 2, "guidance_heads": 2, "max_len": 6, "num_steps": 4}


@pytest.mark.parametrize("method", ["aligndiff", "aligndiff.released"])
def test_the_exported_vectors_give_the_recorded_ranks(tmp_path, method):
    """Of the released reading, too, which does not read the oldest item of a test user."""
    sequences, run = tmp_path / "sequences.npz", tmp_path / "run"
    random_walk(num_users=40, num_items=20).save(sequences)
    shared = ["--sequences", str(sequences), "--compute", '{"device": "cpu", "threads": 1}']
    overrides = {"model": SIZES, "training": {"max_epochs": 1, "first_eval": 1}}
    argv = [*shared, "--dataset", "toy", "--method", method, "--seed", "1", "--overrides", json.dumps(overrides)]
    assert train.main([*argv, "--out", str(run)]) == 0
    assert represent.main([*shared, "--record", str(run / "record.json"), "--out", str(tmp_path / "r.npz")]) == 0
    found, ranks = np.load(tmp_path / "r.npz"), np.load(run / "ranks.npz")
    table_ID = load_file(run / "weights.safetensors")["items.weight"][1:]
    score_UI, target_U = found["generated"] @ table_ID.T, (found["generated"] * found["truth"]).sum(1)
    assert ((score_UI >= target_U[:, None] - 1e-6).sum(1) == ranks["test_kept"]).all()
