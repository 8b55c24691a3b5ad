"""Interrupted and resumed equals undisturbed, bit for bit."""

from contextlib import suppress
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from harness.checkpoint import CheckpointFolder
from harness.fit import FitPlan, OutOfTimeError, fit
from harness.methods import load_method
from harness.ranking import Evaluator
from harness.streams import Streams
from tests.contracts import battery
from tests.harness.scripted import SPLIT, Scripted, run, stop_after


def users_validated(learner):
    return [entry[2] for entry in learner.log if entry[0] == "score"]


def test_a_validation_subset_is_fixed_also_after_a_resume(tmp_path):
    _, learner = run([9], max_epochs=3, eval_users=20)
    subsets = users_validated(learner)
    assert len(subsets) == 3 and len(set(subsets)) == 1 and len(set(subsets[0])) == 20
    folder = CheckpointFolder(tmp_path, identity="x")
    first, second = Scripted([9]), Scripted([9])
    stop_after(first, 1)
    with pytest.raises(KeyboardInterrupt):
        run(None, learner=first, checkpoints=folder, max_epochs=3, eval_users=20, checkpoint_seconds=0)
    run(None, learner=second, checkpoints=folder, max_epochs=3, eval_users=20)
    assert users_validated(first) + users_validated(second) == subsets
    other = Scripted([9])
    fit(other, SPLIT, FitPlan(max_epochs=1, eval_users=20), Streams(2))
    assert users_validated(other)[0] != subsets[0]


def test_early_stopping_is_the_same_when_interrupted_after_each_epoch(tmp_path):
    script = [9, 3, 5, 4, 2, 6, 6, 6, 6]
    expected, reference = run(script, max_epochs=20, patience=3)
    folder, rounds = CheckpointFolder(tmp_path, identity="x"), 0
    while True:
        learner = Scripted(script)
        stop_after(learner, 1)
        try:
            found, _ = run(None, learner=learner, checkpoints=folder, max_epochs=20, patience=3, checkpoint_seconds=0)
            break
        except KeyboardInterrupt:
            rounds += 1
    assert rounds == expected.epochs_run - 1
    assert (found.best_epoch, found.epochs_run, found.val_metric) == (5, 8, expected.val_metric)
    assert torch.equal(learner.module.weight, reference.module.weight)
    assert [row["epoch"] for row in found.history] == list(range(1, 9))


@pytest.mark.parametrize("most_before", [1, 3, 5, 6])
def test_another_max_epochs_goes_on_and_ends_as_if_it_had_been_so_from_the_start(tmp_path, most_before):
    """At any moment, also when the first budget was used up, with a validation that the new one would not have had."""
    script, plan = [9, 9, 9, 8, 9, 7, 9, 9, 9, 9], {"eval_every": 3, "patience": 2, "checkpoint_seconds": 0}
    for stop in range(1, most_before + 1):
        for most in range(1, 9):
            folder = CheckpointFolder(tmp_path / f"{stop}-{most}", identity="x")
            first, second = Scripted(script), Scripted(script)
            stop_after(first, stop)
            with suppress(KeyboardInterrupt):
                run(None, learner=first, checkpoints=folder, max_epochs=most_before, **plan)
            found, _ = run(None, learner=second, checkpoints=folder, max_epochs=most, **plan)
            expected, reference = run(script, max_epochs=most, **plan)
            timeless = [
                [{k: v for k, v in row.items() if "seconds" not in k} for row in each.history]
                for each in (found, expected)
            ]
            assert timeless[0] == timeless[1] and found.best_epoch == expected.best_epoch
            assert torch.equal(second.module.weight, reference.module.weight)
            trained = sum(entry[0] == "train" for entry in second.log)
            # Two checkpoints are kept; one counts if both budgets validate at its epoch or neither does.
            before, now = ({1, 4, 7, last} for last in (most_before, most))
            usable = [e for e in (stop - 1, stop) if e <= most and (e in before) == (e in now)]
            assert trained == most - max(usable, default=0)


def test_a_training_beyond_a_lowered_max_epochs_starts_anew_and_says_so(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path, identity="x")
    run([9, 8, 7, 6], checkpoints=folder, max_epochs=4, checkpoint_seconds=0)
    result, _ = run([9, 8, 7, 6], checkpoints=folder, max_epochs=2)
    assert result.epochs_run == 2
    assert "epoch-000004.ckpt: another max_epochs led there, training with 2 does not come by it" in caplog.text


def build(name, seed=1):
    model = {
        "sasrec": {"embedding_dim": 8, "max_len": 8, "batch_size": 16, "num_blocks": 1},
        "diffurec": {"embedding_dim": 8, "max_len": 8, "batch_size": 64, "num_blocks": 1, "num_heads": 2}
        | {"num_steps": 4, "decay_every": 2},
    }[name]
    method = replace(load_method(name), model=model, datasets={})
    return battery.build(method, SPLIT, seed)


def assert_same_weights(learner, reference):
    for key, value in reference.module.state_dict().items():
        assert torch.equal(learner.module.state_dict()[key], value), key


def ranks_of(learner):
    one = Evaluator(SPLIT.history("test"), SPLIT.test_target_U, seed=1, part="test", max_len=learner.max_len)
    learner.module.eval()
    return one.ranks(learner.score).kept_U


@pytest.mark.parametrize("name", ["sasrec", "diffurec"])
def test_a_run_interrupted_in_every_epoch_equals_the_undisturbed_one_bit_for_bit(tmp_path, name):
    plan = FitPlan(max_epochs=5, checkpoint_seconds=0)
    reference, streams = build(name)
    expected = fit(reference, SPLIT, plan, streams)
    folder, rounds = CheckpointFolder(tmp_path, identity="x"), 0
    for _ in range(20):
        torch.randn(rounds + 3)  # another process would find the global generator elsewhere
        learner, streams = build(name)
        stop_after(learner, 1)
        try:
            found = fit(learner, SPLIT, plan, streams, checkpoints=folder)
            break
        except KeyboardInterrupt:
            rounds += 1
    assert rounds == 4
    assert_same_weights(learner, reference)
    optimizer, other = reference.optimizer.state_dict(), learner.optimizer.state_dict()
    assert optimizer["param_groups"] == other["param_groups"]
    for index, slots in optimizer["state"].items():
        assert all(torch.equal(value, other["state"][index][slot]) for slot, value in slots.items())
    np.testing.assert_array_equal(ranks_of(learner), ranks_of(reference))
    timeless = [{k: v for k, v in row.items() if "seconds" not in k} for row in found.history]
    assert timeless == [{k: v for k, v in row.items() if "seconds" not in k} for row in expected.history]


class Clock:
    """A second passes at every look."""

    now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now


def test_a_spent_budget_stops_resumably(tmp_path, monkeypatch):
    reference, streams = build("sasrec")
    fit(reference, SPLIT, FitPlan(max_epochs=6), streams)
    folder, stops = CheckpointFolder(tmp_path, identity="x"), []
    for budget in (20.0, 20.0, 20.0, None):
        clock = Clock()
        monkeypatch.setattr("harness.fit.time", clock)
        learner, streams = build("sasrec")
        plan = FitPlan(max_epochs=6, checkpoint_seconds=1e9, time_budget_seconds=budget)
        try:
            fit(learner, SPLIT, plan, streams, checkpoints=folder)
        except OutOfTimeError as error:
            assert "run again to go on" in str(error)
            assert clock.now <= 1 + budget, "the limit is kept, counted from the first look"
            stops.append(int(max(tmp_path.glob("epoch-*")).stem.split("-")[1]))
            assert f"after epoch {stops[-1]};" in str(error), "what was trained is saved"
    assert len(stops) >= 2 and stops == sorted(set(stops)), "every round gets further"
    assert_same_weights(learner, reference)


def test_being_out_of_time_is_no_bug_of_ours():
    """Command lines print an OSError as one line."""
    assert issubclass(OutOfTimeError, OSError)


def test_a_finished_run_is_not_trained_again(tmp_path):
    folder = CheckpointFolder(tmp_path, identity="x")
    first, _ = run([9, 3, 5, 5], checkpoints=folder, max_epochs=50, patience=2)
    again, learner = run([9, 3, 5, 5], checkpoints=folder, max_epochs=50, patience=2)
    assert learner.log == [] and learner.module.weight.item() == 2.0
    assert asdict(again) == asdict(first)


def test_a_torn_checkpoint_costs_an_epoch_and_changes_nothing(tmp_path):
    plan = FitPlan(max_epochs=4, checkpoint_seconds=0)
    reference, streams = build("sasrec")
    fit(reference, SPLIT, plan, streams)
    folder = CheckpointFolder(tmp_path, identity="x")
    learner, streams = build("sasrec")
    stop_after(learner, 3)
    with pytest.raises(KeyboardInterrupt):
        fit(learner, SPLIT, plan, streams, checkpoints=folder)
    newest = max(tmp_path.glob("epoch-*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    learner, streams = build("sasrec")
    fit(learner, SPLIT, plan, streams, checkpoints=folder)
    assert_same_weights(learner, reference)


def test_validating_more_often_does_not_change_training():
    often, rarely = build("diffurec"), build("diffurec")
    fit(often[0], SPLIT, FitPlan(max_epochs=3, eval_every=1, patience=99), often[1])
    fit(rarely[0], SPLIT, FitPlan(max_epochs=3, eval_every=3, first_eval=3), rarely[1])
    for one, other in zip(
        often[0].optimizer.state_dict()["state"].values(),
        rarely[0].optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(one[slot], other[slot]) for slot in one)


def test_checkpoint_seconds_matters(tmp_path):
    for seconds, count in ((0.0, 2), (1e9, 0)):
        folder = tmp_path / str(seconds)
        learner = Scripted([9])
        stop_after(learner, 3)
        with pytest.raises(KeyboardInterrupt):
            run(
                None,
                learner=learner,
                checkpoints=CheckpointFolder(folder, identity="x"),
                max_epochs=9,
                checkpoint_seconds=seconds,
            )
        assert len(list(folder.glob("epoch-*"))) == count
