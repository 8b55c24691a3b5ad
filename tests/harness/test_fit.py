"""The training loop, driven by a learner whose every score is scripted."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from harness.compute import Compute
from harness.fit import DivergedError, FitPlan, fit
from harness.learner import SingleLossLearner
from harness.split import Sequences, leave_one_out
from harness.streams import Streams
from tests.harness.scripted import NUM_ITEMS, SPLIT, Scripted, run


def test_patience_counts_validations_without_improvement():
    result, learner = run([9, 3, 5, 5, 5, 1], max_epochs=50, patience=3)
    assert (result.best_epoch, result.epochs_run) == (2, 5)
    assert learner.module.weight.item() == 2.0, "the weights of the best epoch are restored"


def test_one_more_validation_of_patience_finds_the_later_best():
    result, learner = run([9, 3, 5, 5, 5, 1], max_epochs=6, patience=4)
    assert (result.best_epoch, result.epochs_run) == (6, 6)
    assert learner.module.weight.item() == 6.0
    assert result.val_metric == 1.0


def test_an_equal_metric_is_no_improvement():
    result, _ = run([3], max_epochs=50, patience=2)
    assert (result.best_epoch, result.epochs_run) == (1, 3)


def test_max_epochs_ends_training_and_its_last_epoch_is_validated():
    result, _ = run([9, 8, 7, 6, 5], max_epochs=5, eval_every=3)
    assert result.epochs_run == result.best_epoch == 5
    assert ["val_HR@5" in row for row in result.history] == [True, False, False, True, True]


def test_eval_every_counts_from_first_eval():
    result, learner = run([9], max_epochs=9, eval_every=3, first_eval=2, patience=99)
    assert [row["epoch"] for row in result.history if "val_HR@5" in row] == [2, 5, 8, 9]
    assert [entry[1] for entry in learner.log if entry[0] == "end"] == [epoch in (2, 5, 8, 9) for epoch in range(1, 10)]


def test_patience_is_in_validations_not_epochs():
    result, _ = run([1], max_epochs=99, eval_every=4, patience=2)
    assert result.epochs_run == 9  # validated at 1, 5 and 9


def test_no_epochs_leave_the_initial_weights():
    learner = Scripted([1])
    before = learner.module.weight.clone()
    result, _ = run([1], learner=learner, max_epochs=0)
    assert result.best_epoch is None and result.epochs_run == 0 and result.val_metric is None
    assert torch.equal(learner.module.weight, before)


def test_evaluation_is_without_dropout_and_training_with():
    _, learner = run([3, 2], max_epochs=2)
    assert all(entry[1] is (entry[0] == "train") for entry in learner.log if entry[0] != "end")


def test_history_has_mean_terms_and_metrics():
    result, _ = run([7], max_epochs=1)
    row = result.history[0]
    assert row["loss"] == 1.5 and row["other"] == 0.5 and row["epoch"] == 1
    assert row["val_HR@5"] == 0.0 and row["val_HR@10"] == 1.0
    assert result.val_metric == row["val_NDCG@10"] == pytest.approx(1 / 3)
    assert row["seconds"] >= 0 and row["eval_seconds"] >= 0


def test_the_time_of_a_training_is_that_of_all_its_epochs(monkeypatch):
    """On a clock that only training and scoring move, by a second each."""
    learner = Scripted([3, 2, 1])
    clock = SimpleNamespace(monotonic=lambda: sum(entry[0] != "end" for entry in learner.log))
    monkeypatch.setattr("harness.fit.time", clock)
    result, _ = run(None, learner=learner, max_epochs=3)
    assert result.train_seconds == sum(row["seconds"] + row["eval_seconds"] for row in result.history) == 6


def test_noise_in_validation_is_that_of_the_runs_own_seed():
    def drawn(seed):
        learner, draws = Scripted([1]), []
        score = learner.score
        learner.score = lambda history_BL, user_B, noise: (
            draws.append(noise.normal(2)) or score(history_BL, user_B, noise)
        )
        fit(learner, SPLIT, FitPlan(max_epochs=1), Streams(seed))
        return torch.cat(draws)

    assert drawn(1).equal(drawn(1)) and not drawn(1).equal(drawn(2))


def test_what_a_score_draws_from_the_global_generator_is_not_missing_in_training():
    def trained(drawn_by_score):
        learner, draws = Scripted([1]), []
        score, step = learner.score, learner.training_step
        learner.score = lambda *arguments: torch.randn(drawn_by_score) is not None and score(*arguments)
        learner.training_step = lambda batch: draws.append(torch.rand(())) or step(batch)
        run(None, learner=learner, max_epochs=3)
        return torch.stack(draws)

    assert trained(5).equal(trained(0))


def test_validation_never_ranks_test_items():
    """A learner that knows only the validation targets is perfect in every validation."""
    result, _ = run([1], max_epochs=1)
    assert result.val_metric == 1.0


def test_select_any_keeps_the_last_epoch_at_which_any_metric_rose():
    # Epoch 2 beats epoch 1 at HR@20 only; NDCG@10 is 0 from then on.
    class Mixed(Scripted):
        def score(self, history_BL, user_B, noise):
            first, second = Scripted([7], split=SPLIT), Scripted([15], split=SPLIT)
            if self.epoch > 1:
                return second.score(history_BL, user_B, noise)
            score = first.score(history_BL, user_B, noise)
            score[10:] = -score[10:]  # most users far down
            return score

    metric, _ = run(None, learner=Mixed([1]), max_epochs=2)
    anything, learner = run(None, learner=Mixed([1]), max_epochs=2, select="any")
    assert metric.best_epoch == 1 and anything.best_epoch == 2
    assert anything.val_metric == anything.history[1]["val_NDCG@10"] < metric.val_metric
    assert learner.module.weight.item() == 2.0


@pytest.mark.parametrize(("step", "term"), [(0, "loss"), (1, "loss")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_term_and_epoch(step, term, value):
    learner = Scripted([9, 3], losses={(2, step): value})
    with pytest.raises(DivergedError, match=rf"{term} not finite in epoch 2 by step {step + 1} \(other 0.5\)"):
        run(None, learner=learner, max_epochs=5)


def test_a_long_epoch_is_given_up_early():
    learner = Scripted([9], batches=1000, losses={(1, 20): float("nan")})
    with pytest.raises(DivergedError, match="epoch 1 by step 50"):
        run(None, learner=learner, max_epochs=1)


def test_a_loss_that_was_never_finite_is_known_after_one_step():
    """Then it is the loss that is wrong, not the learning rate."""
    learner = Scripted([9], batches=1000, losses={(1, 0): float("nan")})
    with pytest.raises(DivergedError, match=r"epoch 1 by step 1 \("):
        run(None, learner=learner, max_epochs=1)


def test_scores_that_are_nan_are_a_divergence():
    learner = Scripted([9])
    learner.score = lambda history_BL, user_B, noise: torch.full((len(user_B), NUM_ITEMS + 1), float("nan"))
    with pytest.raises(DivergedError, match="NaN"):
        run(None, learner=learner, max_epochs=1)


# Every field of the plan changes something that can be seen.


def outcome(**plan):
    result, learner = run([9, 8, 15, 2, 9, 9, 9, 9], **({"max_epochs": 8, "patience": 99} | plan))
    rows = [{key: value for key, value in row.items() if "seconds" not in key} for row in result.history]
    return result.best_epoch, result.epochs_run, result.val_metric, rows, learner.log


@pytest.mark.parametrize(
    "change",
    [
        {"max_epochs": 3},
        {"eval_every": 2},
        {"patience": 1},
        {"first_eval": 3},
        {"metric": "HR@20"},
        {"eval_users": 5},
        {"eval_batch_size": 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_the_plan_matters(change):
    assert outcome(**change) != outcome()


def test_seen_matters():
    split = leave_one_out(Sequences.from_lists([[1, 2, 3, 30, 31]] * 3, NUM_ITEMS))

    def first_value(seen):
        learner = Scripted([4], split=split)
        return fit(learner, split, FitPlan(max_epochs=1, seen=seen), Streams(1)).val_metric

    assert first_value("kept") == pytest.approx(1 / np.log2(5))
    assert first_value("hidden") == 1.0


@pytest.mark.parametrize(
    "values",
    [
        {"max_epochs": -1},
        {"eval_every": 0},
        {"patience": 0},
        {"first_eval": 0},
        {"eval_batch_size": 0},
        {"eval_users": 0},
        {"metric": "MRR@10"},
        {"checkpoint_seconds": -1.0},
        {"time_budget_seconds": 0.0},
    ],
)
def test_impossible_plans_are_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}: .* legal values are"):
        FitPlan(**values)


class OneWeight(SingleLossLearner):
    def batches(self):
        yield torch.tensor(100.0)

    def loss(self, batch):
        return {"loss": batch * self.module.weight.sum(), "extra": self.module.weight.sum()}

    def score(self, history_BL, user_B, noise):
        return torch.zeros(len(user_B), NUM_ITEMS + 1)


@pytest.mark.parametrize("terms", [{"los": torch.tensor(1.0)}, {"loss": torch.ones(3)}])
def test_a_loss_that_is_no_named_scalar_is_refused(terms, monkeypatch):
    monkeypatch.setattr(OneWeight, "loss", lambda self, batch: terms)
    learner = OneWeight(nn.Linear(1, 1), max_len=3, compute=Compute(), learning_rate=0.1)
    with pytest.raises(ValueError, match="named scalars with 'loss' among them; it returned shapes"):
        learner.training_step(torch.tensor(1.0))


@pytest.mark.parametrize(("clip", "expected"), [(None, 100.0), (1.0, 1.0)])
def test_single_loss_learner_clips_and_updates_once(clip, expected):
    learner = OneWeight(nn.Linear(1, 1, bias=False), max_len=3, compute=Compute(), learning_rate=0.1, clip_norm=clip)
    before = float(learner.module.weight.detach())
    for _ in range(2):
        terms = learner.training_step(torch.tensor(100.0))
    assert float(learner.module.weight.grad) == pytest.approx(expected), "gradients do not pile up"
    assert float(learner.module.weight.detach()) == pytest.approx(before - 0.2, abs=1e-5)
    assert not any(value.requires_grad for value in terms.values()) and set(terms) == {"loss", "extra"}
