"""The chaos benchmark at reduced size: kills at random moments, results as undisturbed."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks import chaos

pytestmark = pytest.mark.slow


def test_killed_trainings_and_workflows_end_as_if_undisturbed(tmp_path):
    assert chaos.main(["--kills", "3", "--dag-kills", "1", "--seed", "3", "--out", str(tmp_path / "chaos.json")]) == 0
    found = json.loads((tmp_path / "chaos.json").read_text())
    assert found["kills"] == 3 and found["by_kind"]["single training"] == 2
    assert found["carried_to_the_end"] >= 2
    assert found["resumed_from_checkpoint"] >= 1, "kills that leave no checkpoint try nothing"


def test_a_training_that_ends_without_snakemake_is_not_repeated(tmp_path):
    """Snakemake is killed, its training ends by itself, Snakemake starts again: the result is there, nothing else."""
    place = chaos.Workplace(tmp_path, random.Random(1))
    chaos.prepare(tmp_path)
    command = [*chaos.SNAKEMAKE, "results/chaos/runs/toy/sasrec/seed1/record.json"]
    try:
        assert chaos.kill_once(place, command, chaos.ENDED, 0.0)
        record = place.out / "runs/toy/sasrec/seed1/record.json"
        content = record.read_bytes()
        chaos.unlock(place)
        place.finish(command)
    finally:
        place.end_all()
    assert record.read_bytes() == content, "trained again, at another time"
    assert not (place.out / "checkpoints/toy/sasrec/seed1").exists()
    place.count_messages()
    assert place.taken == 1


def test_a_difference_would_be_noticed(tmp_path):
    def result(ranks: bytes):
        return {"toy/sasrec/seed1": (ranks, b"weights", "metrics")}

    chaos.require_same(result(b"same"), result(b"same"))
    for found in (result(b"other"), {}, result(b"same") | {"toy/extra/seed1": ()}):
        with pytest.raises(RuntimeError, match="differ from the undisturbed run"):
            chaos.require_same(found, result(b"same"))


@pytest.mark.parametrize("name", [".lock", ".record.12.json", "epoch-000003.ckpt"])
def test_litter_would_be_noticed(tmp_path, name):
    chaos.require_tidy(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(RuntimeError, match="left behind"):
        chaos.require_tidy(tmp_path)
