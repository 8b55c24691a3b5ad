"""One cell of the grid: build a method, train it or load its weights, rank every user, leave a record."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from harness.checkpoint import CheckpointFolder
from harness.compute import Compute, describe, evaluation_mode
from harness.digest import value_sha256
from harness.files import replacing
from harness.fit import DivergedError, FitPlan, FitResult, fit, path_sha256, settings_sha256
from harness.learner import Learner, num_parameters
from harness.methods import build_learner
from harness.metrics import summarise
from harness.ranking import Evaluator, NotFiniteError
from harness.record import RunRecord, read_record, write_ranks, write_record
from harness.run_files import RunFiles
from harness.split import Split, drop_first_item
from harness.streams import Streams, forked_global_stream

log = logging.getLogger(__name__)

DIVERGED_ADVICE = (
    "try a lower learning_rate, or a clip_norm where the method has one; by step 1 of epoch 1, look at the loss itself"
)
OUT_OF_MEMORY_ADVICE = (
    "out of GPU memory: if other processes held it, python -m workflow.scripts.verify --runs FOLDER "
    "--delete-out-of-memory, with the folder of all runs, and start again; otherwise lower model.batch_size or set "
    "compute.precision to bf16"
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What identifies a run. `settings` is the resolved mapping of `harness.methods.Method.resolved`."""

    dataset: str
    method: str
    display: str
    variant_of: str | None
    seed: int
    settings: dict[str, Any]
    code_digest: str

    def identity(self, split: Split, compute: Compute) -> str:
        """Digest of everything that decides the result; a checkpoint of another identity is foreign.

        When to save and when to stop for the clock decide nothing, and `max_epochs` nothing before it is reached: a
        run may be resumed under other ones.
        """
        path = path_sha256(self.settings)
        return value_sha256([self.method, self.seed, path, self.code_digest, split.sha256, compute.arithmetic()])


def train(job: Job, split: Split, files: RunFiles, compute: Compute, checkpoints: Path | None) -> RunRecord:
    """Train a method, evaluate its best epoch on the test items, write all outputs, the record last.

    A run that diverges or runs out of memory is recorded as such and is not an error here.
    """
    run = _Run(job, split, files, compute)
    folder = (
        CheckpointFolder(checkpoints, identity=job.identity(split, compute), device=compute.device.type)
        if checkpoints
        else None
    )
    plan = FitPlan(**job.settings["training"])
    streams, history = Streams(job.seed), []
    try:
        with compute.products():
            learner = build_learner(job.settings, split.training_view(), streams, compute)
            result = fit(learner, split, plan, streams, checkpoints=folder, history=history)
            record = run.completed(learner, result)
    except DivergedError as error:
        record = run.failed("diverged", f"{error}; {DIVERGED_ADVICE}", history)
    except torch.cuda.OutOfMemoryError:
        record = run.failed("out_of_memory", OUT_OF_MEMORY_ADVICE, history)
    kept = record.completed and files.keep()
    # Memory may have been short for a moment only: then a rerun goes on from the checkpoint.
    if folder and record.status != "out_of_memory" and (kept or not record.completed):
        folder.remove()
    return record


def evaluator_of(
    settings: Mapping[str, Any], split: Split, part: str, learner: Learner, seed: int, compute: Compute
) -> Evaluator:
    """Return what ranks all users of `part` ("val" or "test") at the end of a run with these resolved settings."""
    history = split.history(part)
    without_first = part == "test" and settings["evaluation"]["test_inputs_without_first"]
    return Evaluator(
        history,
        split.target_U(part),
        seed=seed,
        part=part,
        max_len=learner.max_len,
        batch_size=settings["training"]["eval_batch_size"],
        inputs=drop_first_item(history) if without_first else None,
        device=compute.device,
    )


def reevaluate(job: Job, split: Split, files: RunFiles, compute: Compute, weights: Path) -> RunRecord:
    """Evaluate another method's trained weights under this job's settings; nothing is trained.

    files: with `trained=False`. Weights of a run that did not complete, as the record beside them says, make this
    run end the same way.
    """
    run = _Run(job, split, files, compute)
    beside = weights.with_name("record.json")
    origin = read_record(beside) if beside.is_file() else None
    if origin and not origin.completed:
        return run.failed(origin.status, f"{origin.method}, whose weights it evaluates: {origin.reason}")
    if origin:
        check_data(beside, origin, split)
    try:
        learner = build_learner(job.settings, split.training_view(), Streams(job.seed), compute)
        load_weights(learner, weights, method=job.method, device=compute.device)
        with compute.products():
            return run.completed(learner, FitResult(None, 0, None, 0.0, []))
    except DivergedError as error:
        return run.failed("diverged", str(error))
    except torch.cuda.OutOfMemoryError:
        return run.failed("out_of_memory", OUT_OF_MEMORY_ADVICE)


def load_learner(path: Path, record: RunRecord, split: Split, compute: Compute) -> Learner:
    """The trained model of a finished run, from its record.json and the weights beside it.

    Raises ValueError if the run was trained on other data than `split`, or if its weights cannot be read.
    """
    check_data(path, record, split)
    learner = build_learner(record.settings, split.training_view(), Streams(record.seed), compute)
    load_weights(learner, path.with_name("weights.safetensors"), method=record.method, device=compute.device)
    return learner


def check_data(path: Path, record: RunRecord, split: Split) -> None:
    """Raise ValueError if the run of `record`, read from `path`, was trained on other data than `split`."""
    if record.data_sha256 != split.sha256:
        raise ValueError(f"{path}: trained on other data than the sequences given")


def load_weights(learner: Learner, path: Path, *, method: str, device: torch.device) -> None:
    """Read the weights of a finished run.  Raises ValueError naming a file that holds others, or none."""
    if RunFiles(path.parent).weights_altered():
        raise ValueError(
            f"{path}: not what {method} had when it finished (damaged, or put there by hand); delete it and the "
            "record.json beside it to make the run again"
        )
    try:
        learner.module.load_state_dict(load_file(path, device=str(device)))
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, OSError, SafetensorError) as error:
        why = " ".join(str(error).split())[:160]  # torch lists every tensor that does not fit
        raise ValueError(f"{path}: not the weights of {method} ({why}); delete its folder to train it again") from error


def _save_weights(module: torch.nn.Module, path: Path) -> None:
    """Copies, because the weights of a GRU on a GPU are views of one buffer, which safetensors refuses."""
    copied = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    with replacing(path) as partial:
        try:
            save_file(copied, str(partial))
        except SafetensorError as error:  # its way of reporting a full disk
            raise OSError(f"{path}: cannot be written ({error})") from error


def _finite(diagnostics: Mapping[str, float]) -> dict[str, float]:
    """All but NaN and infinity, which no record can hold and for which no finished training should be lost."""
    lost = [name for name, value in diagnostics.items() if not math.isfinite(value)]
    if lost:
        log.warning("not recorded, since they are not finite: %s", ", ".join(lost))
    return {name: value for name, value in diagnostics.items() if name not in lost}


class _Run:
    """Collects the outputs of one job and writes them."""

    def __init__(self, job: Job, split: Split, files: RunFiles, compute: Compute) -> None:
        self.job, self.split, self.files, self.compute = job, split, files, compute
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        files.folder.mkdir(parents=True, exist_ok=True)
        files.sweep()

    def completed(self, learner: Learner, result: FitResult) -> RunRecord:
        began = time.monotonic()
        ranks, diagnostics = {}, {}
        with forked_global_stream(), evaluation_mode(learner.module):
            for part in ("val", "test"):
                evaluator = evaluator_of(self.job.settings, self.split, part, learner, self.job.seed, self.compute)
                try:
                    found = evaluator.ranks(
                        evaluator.oracle_score if getattr(learner, "is_oracle", False) else learner.score
                    )
                except NotFiniteError as error:
                    raise DivergedError(str(error)) from error
                ranks |= {f"{part}_kept": found.kept_U, f"{part}_hidden": found.hidden_U}
                if part == "test" and hasattr(learner, "probe"):
                    diagnostics = evaluator.averages(learner.probe)
        eval_seconds = round(time.monotonic() - began, 3)
        self._write_training(result.history, learner.module)
        return self._write_record(
            ranks,
            status="completed",
            started=min([*result.starts, self.started]),
            resumes=max(len(result.starts) - 1, 0),
            best_epoch=result.best_epoch,
            epochs_run=result.epochs_run,
            val_metric=result.val_metric,
            num_parameters=num_parameters(learner.module),
            train_seconds=round(result.train_seconds, 3),
            eval_seconds=eval_seconds,
            metrics={name: summarise(rank_U) for name, rank_U in ranks.items()},
            diagnostics=_finite(diagnostics),
        )

    def failed(self, status: str, reason: str, history: Sequence[dict[str, float]] = ()) -> RunRecord:
        """Leave the epochs before the failure, no ranks, no weights, and a record that says what happened."""
        log.error("%s on %s, seed %d: %s: %s", self.job.method, self.job.dataset, self.job.seed, status, reason)
        self._write_training(history, torch.nn.Module())
        seconds = round(sum(row["seconds"] + row.get("eval_seconds", 0.0) for row in history), 3)
        return self._write_record({}, status=status, reason=reason, epochs_run=len(history), train_seconds=seconds)

    def _write_training(self, rows: Sequence[dict[str, float]], module: torch.nn.Module) -> None:
        """Write what only a training leaves: its epochs and its weights."""
        if not self.files.trained:
            return
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["epoch"]
        with replacing(self.files.history) as path, open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        _save_weights(module, self.files.weights)

    def _write_record(self, ranks: dict[str, np.ndarray], **outcome: Any) -> RunRecord:
        values = asdict(self.job) | {"started": self.started} | outcome
        record = RunRecord(
            **values,
            settings_sha256=settings_sha256(self.job.settings),
            data_sha256=self.split.sha256,
            environment=describe(self.compute),
            peak_memory_bytes=self.compute.peak_memory_bytes(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            num_users=self.split.num_users,
            ranks_sha256=write_ranks(self.files.ranks, ranks),
        )
        write_record(record, self.files.record)
        return record


def progress_line(record: RunRecord) -> str:
    """One line for the log: what a finished run reached, in percent."""
    place = f"{record.method} on {record.dataset}, seed {record.seed}"
    if not record.completed:
        return f"{place}: {record.status}"
    test = record.metrics["test_kept"]
    figures = ", ".join(f"{name} {100 * test[name]:.2f}" for name in ("HR@10", "NDCG@10"))
    return f"{place}: {figures} % (best epoch {record.best_epoch} of {record.epochs_run}, {record.train_seconds:.0f} s)"
