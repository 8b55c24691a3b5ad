"""Other draws of the noise: the weights and the method stay, only what is drawn at ranking moves."""

from __future__ import annotations

import json

import pytest

from harness.synthetic import random_walk
from workflow.scripts import redraw, train

SIZES = {
    "aligndiff": {"embedding_dim": 8, "num_blocks": 1, "num_heads": 2, "guidance_heads": 2, "max_len": 6},
    "sasrec": {"embedding_dim": 8, "num_blocks": 1, "max_len": 6},
}


def draws_of(folder, method, draws=2):
    sequences, run = folder / "sequences.npz", folder / "run"
    random_walk(num_users=200, num_items=40).save(sequences)
    shared = ["--sequences", str(sequences), "--compute", '{"device": "cpu", "threads": 1}']
    overrides = {"model": SIZES[method], "training": {"max_epochs": 1, "first_eval": 1}}
    argv = [*shared, "--dataset", "toy", "--method", method, "--seed", "1", "--overrides", json.dumps(overrides)]
    assert train.main([*argv, "--out", str(run)]) == 0
    out = folder / "draws.json"
    argv = [*shared, "--record", str(run / "record.json"), "--draws", str(draws), "--out", str(out)]
    assert redraw.main(argv) == 0
    return json.loads(out.read_text()), json.loads((run / "record.json").read_text())


def test_the_first_draw_is_the_runs_own_and_the_others_differ_from_it_and_from_each_other(tmp_path):
    found, record = draws_of(tmp_path, "aligndiff")
    own, *others = found["draws"]
    assert own == {part: record["metrics"][part] for part in ("test_kept", "test_hidden")}
    assert len(others) == 2 and all(0 < draw["ranks_changed"] <= 1 for draw in others)
    assert others[0] != others[1]
    for name in redraw.IDENTITY:
        assert found[name] == record[name]


def test_a_model_without_noise_has_no_spread(tmp_path):
    found, _ = draws_of(tmp_path, "sasrec")
    assert all(draw["ranks_changed"] == 0 for draw in found["draws"][1:])
    assert all(value < 1e-12 for part in found["standard_deviation"].values() for value in part.values())


def test_no_draw_is_refused(capsys):
    with pytest.raises(SystemExit):
        redraw.main(["--sequences", "s", "--record", "r", "--draws", "0", "--out", "o"])
    assert "--draws 0: 1 or more" in capsys.readouterr().err
