"""One training loop for every method: epochs, validation, early stopping, resume."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import torch

from harness.checkpoint import CheckpointFolder
from harness.compute import evaluation_mode
from harness.digest import value_sha256
from harness.learner import Learner
from harness.metrics import CUTOFFS, METRICS, summarise
from harness.ranking import Evaluator, NotFiniteError
from harness.settings import require
from harness.split import Split
from harness.streams import Streams, derive_seed, forked_global_stream

log = logging.getLogger(__name__)

CLOCK = ("checkpoint_seconds", "time_budget_seconds")  # fields of FitPlan that decide no result
CHECK_EVERY = 50  # steps between looks at the loss after the first; a look waits for the GPU


class DivergedError(RuntimeError):
    """A loss term or a score is not finite; the message says when and what was last finite."""


class OutOfTimeError(TimeoutError):
    """The wall-clock budget ended; a checkpoint was written and the run can go on later."""


@dataclass(frozen=True)
class FitPlan:
    """How long to train and which epoch to keep. Nothing here ever sees a test target."""

    max_epochs: int = 200
    eval_every: int = 1  # epochs between validations
    patience: int = 20  # validations without improvement before training stops
    first_eval: int = 1  # epoch of the first validation
    metric: str = "NDCG@10"  # what early stopping watches
    seen: Literal["kept", "hidden"] = "kept"  # whether seen items are candidates in that metric
    select: Literal["metric", "any"] = "metric"  # "any": keep weights when any validation metric beats its best
    eval_users: int | None = None  # validate on a fixed random subset of users; None = all
    eval_batch_size: int = 1024
    checkpoint_seconds: float = 60.0  # least time between checkpoints; 0 = after every epoch
    time_budget_seconds: float | None = None  # stop resumably before this much wall-clock time is used

    def __post_init__(self) -> None:
        require(self.max_epochs >= 0, "max_epochs", self.max_epochs, "0 or more")
        for name in ("eval_every", "patience", "first_eval", "eval_batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(
            self.eval_users is None or self.eval_users >= 1,
            "eval_users",
            self.eval_users,
            "null or 1 or more",
        )
        require(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "0 or more")
        require(
            self.time_budget_seconds is None or self.time_budget_seconds > 0,
            "time_budget_seconds",
            self.time_budget_seconds,
            "null or above 0",
        )
        require(self.metric in all_metrics(), "metric", self.metric, ", ".join(all_metrics()))

    def evaluates(self, epoch: int) -> bool:
        due = epoch >= self.first_eval and (epoch - self.first_eval) % self.eval_every == 0
        return due or epoch == self.max_epochs

    def passes(self, state: FitState) -> bool:
        """Whether training by this plan comes by a state that was reached under the same plan but for `max_epochs`."""
        validated = bool(state.history) and "eval_seconds" in state.history[-1]
        return state.epoch <= self.max_epochs and validated == self.evaluates(state.epoch)

    def ends(self, state: FitState) -> bool:
        return state.stale >= self.patience or state.epoch >= self.max_epochs


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """Digest of resolved settings as far as they decide a result: CLOCK counts as if it had its defaults."""
    return _sha256_but_for(CLOCK, settings)


def path_sha256(settings: Mapping[str, Any]) -> str:
    """Digest of what decides the states that a training passes through: where it ends at the latest does not."""
    return _sha256_but_for((*CLOCK, "max_epochs"), settings)


def _sha256_but_for(names: Sequence[str], settings: Mapping[str, Any]) -> str:
    defaults = {name: getattr(FitPlan(), name) for name in names}
    return value_sha256({**settings, "training": {**settings["training"], **defaults}})


def all_metrics() -> list[str]:
    return [f"{name}@{k}" for name in METRICS for k in CUTOFFS]


@dataclass
class FitState:
    """Where training stands; all of it goes into a checkpoint."""

    epoch: int = 0
    best_epoch: int | None = None
    best: dict[str, float] = field(default_factory=dict)  # best value so far of each watched metric
    stale: int = 0  # validations since the last improvement
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    starts: list[str] = field(default_factory=list)  # when each process that trained a part began


@dataclass(frozen=True)
class FitResult:
    """Outcome of a finished fit; the learner holds the weights of `best_epoch`."""

    best_epoch: int | None
    epochs_run: int
    val_metric: float | None  # a fraction
    train_seconds: float
    history: list[dict[str, float]]
    starts: tuple[str, ...] = ()  # of the processes that trained it, in UTC: more than one after an interruption


def fit(
    learner: Learner,
    split: Split,
    plan: FitPlan,
    streams: Streams,
    *,
    checkpoints: CheckpointFolder | None = None,
    history: list[dict[str, float]] | None = None,
) -> FitResult:
    """Train, validate, stop early, restore the best epoch. A method without parameters has nothing to train.

    history: filled with a row per epoch, so that the epochs before an error are not lost with it.
    Raises DivergedError as soon as a loss term or a score is found not finite, OutOfTimeError when the budget ends.
    """
    if not any(True for _ in learner.module.parameters()):
        return FitResult(None, 0, None, 0.0, [])
    deadline = time.monotonic() + (plan.time_budget_seconds or math.inf)
    state = FitState()
    streams.seed_global("dropout")
    resumed = checkpoints.load(lambda snapshot: _problem(plan, snapshot)) if checkpoints else None
    if resumed:
        state = _restore(learner, streams, resumed[1])
        log.info("resumed after epoch %d", state.epoch)
    if not plan.ends(state):
        state.starts.append(datetime.now(UTC).isoformat(timespec="seconds"))
    if history is not None:
        history[:] = state.history
        state.history = history
    evaluator = _validation(learner, split, plan, streams)
    last_saved, slowest = time.monotonic(), 0.0
    while not plan.ends(state):
        if time.monotonic() + slowest > deadline:
            raise OutOfTimeError(f"wall-clock budget used up after epoch {state.epoch}; run again to go on")
        began = time.monotonic()
        _one_epoch(learner, plan, state, evaluator)
        slowest = max(slowest, time.monotonic() - began)
        near_deadline = time.monotonic() + 2 * slowest > deadline
        due = plan.ends(state) or near_deadline or time.monotonic() - last_saved >= plan.checkpoint_seconds
        if checkpoints and due:
            checkpoints.save(state.epoch, _snapshot(learner, streams, state))
            last_saved = time.monotonic()
    if state.best_weights:
        learner.module.load_state_dict(state.best_weights)
    val_metric = next((row[f"val_{plan.metric}"] for row in state.history if row["epoch"] == state.best_epoch), None)
    return FitResult(state.best_epoch, state.epoch, val_metric, state.seconds, state.history, tuple(state.starts))


def _validation(learner: Learner, split: Split, plan: FitPlan, streams: Streams) -> Evaluator:
    users = None
    if plan.eval_users is not None and plan.eval_users < split.num_users:
        # A generator of its own: a resumed run must choose the same users again.
        rng = np.random.default_rng(derive_seed(streams.seed, "validation users"))
        users = np.sort(rng.choice(split.num_users, plan.eval_users, replace=False))
    return Evaluator(
        split.history("val"),
        split.target_U("val"),
        seed=streams.seed,
        part="val",
        max_len=learner.max_len,
        batch_size=plan.eval_batch_size,
        users=users,
        device=next((p.device for p in learner.module.parameters()), torch.device("cpu")),
    )


def _one_epoch(learner: Learner, plan: FitPlan, state: FitState, evaluator: Evaluator) -> None:
    began = time.monotonic()
    epoch = state.epoch + 1
    row: dict[str, float] = {"epoch": epoch, **_train(learner, epoch)}
    row["seconds"] = time.monotonic() - began
    metrics = None
    if plan.evaluates(epoch):
        metrics = evaluate(learner, evaluator, plan.seen)
        row |= {f"val_{name}": value for name, value in metrics.items()}
        row["eval_seconds"] = time.monotonic() - began - row["seconds"]
        _keep_best(learner, plan, state, epoch, metrics)
    learner.end_epoch(metrics)
    state.epoch = epoch
    state.seconds += time.monotonic() - began
    state.history.append(row)
    log.info("%s", ", ".join(f"{k} {v:.4g}" for k, v in row.items()))


def _train(learner: Learner, epoch: int) -> dict[str, float]:
    """Run one epoch of updates; return the mean of each loss term."""
    learner.module.train()
    sums: dict[str, torch.Tensor] = {}
    steps = 0
    for batch in learner.batches():
        for name, value in learner.training_step(batch).items():
            sums[name] = sums[name] + value if name in sums else value.clone()
        steps += 1
        if steps == 1 or steps % CHECK_EVERY == 0:
            _require_finite(sums, epoch, steps)
    _require_finite(sums, epoch, steps)
    return {name: float(value) / steps for name, value in sums.items()}


def _require_finite(sums: dict[str, torch.Tensor], epoch: int, steps: int) -> None:
    broken = [name for name, value in sums.items() if not math.isfinite(float(value))]
    if broken:
        rest = ", ".join(f"{k} {float(v) / steps:.4g}" for k, v in sums.items() if k not in broken)
        others = f" ({rest})" if rest else ""
        raise DivergedError(f"{', '.join(broken)} not finite in epoch {epoch} by step {steps}{others}")


def evaluate(learner: Learner, evaluator: Evaluator, seen: str) -> dict[str, float]:
    """Metrics on the evaluator's users, as fractions, without disturbing training."""
    with forked_global_stream(), evaluation_mode(learner.module):
        try:
            ranks = evaluator.ranks(learner.score)
        except NotFiniteError as error:
            raise DivergedError(str(error)) from error
    return summarise(ranks.kept_U if seen == "kept" else ranks.hidden_U)


def _keep_best(learner: Learner, plan: FitPlan, state: FitState, epoch: int, metrics: dict[str, float]) -> None:
    watched = all_metrics() if plan.select == "any" else [plan.metric]
    better = [name for name in watched if metrics[name] > state.best.get(name, -math.inf)]
    state.best |= {name: metrics[name] for name in better}
    if better:
        state.best_epoch, state.stale = epoch, 0
        state.best_weights = copy.deepcopy(learner.module.state_dict())
    else:
        state.stale += 1


def _snapshot(learner: Learner, streams: Streams, state: FitState) -> dict[str, Any]:
    return {"learner": learner.state_dict(), "streams": streams.state_dict(), "fit": dict(vars(state))}


def _problem(plan: FitPlan, snapshot: dict[str, Any]) -> str | None:
    if plan.passes(FitState(**snapshot["fit"])):
        return None
    return f"another max_epochs led there, training with {plan.max_epochs} does not come by it"


def _restore(learner: Learner, streams: Streams, snapshot: dict[str, Any]) -> FitState:
    learner.load_state_dict(snapshot["learner"])
    streams.load_state_dict(snapshot["streams"])
    return FitState(**snapshot["fit"])
