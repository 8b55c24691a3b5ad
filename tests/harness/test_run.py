"""One cell from settings to outputs: completed, diverged, repeated, resumed."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import harness.fit
from harness import run, run_files
from harness.compute import Compute
from harness.fit import DivergedError
from harness.metrics import summarise
from harness.ranking import NotFiniteError
from harness.record import read_record
from harness.run import progress_line, train
from harness.run_files import RunFiles
from harness.split import leave_one_out
from harness.synthetic import random_walk
from tests.harness.cells import SPLIT, assert_failed, assert_same_ranks, job, ranks_in, trained


def test_a_record_is_consistent_with_its_ranks(first):
    record, files = first
    assert record.completed and read_record(files.record) == record
    ranks = ranks_in(files)
    for name, rank_U in ranks.items():
        assert rank_U.shape == (SPLIT.num_users,) == (record.num_users,)
        assert rank_U.min() >= 1 and rank_U.max() <= SPLIT.num_items
        assert record.metrics[name] == summarise(rank_U)
    assert (ranks["test_hidden"] <= ranks["test_kept"]).all()
    assert (ranks["test_hidden"] < ranks["test_kept"]).any()


def test_a_record_says_what_was_run(first):
    record, files = first
    assert record.data_sha256 == SPLIT.sha256 and record.code_digest == "code"
    assert record.val_metric == record.metrics["val_kept"]["NDCG@10"], "validated weights are the stored ones"
    assert record.best_epoch in (1, 2) and record.epochs_run == 2
    assert record.num_parameters == sum(value.numel() for value in load_file(files.weights).values())
    assert record.train_seconds > 0 and record.started <= record.finished
    assert record.settings["model"]["embedding_dim"] == 8 and "dropout" in record.settings["model"]
    with open(files.history, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and float(rows[0]["loss"]) > 0
    best = rows[record.best_epoch - 1]
    assert float(best["val_NDCG@10"]) == record.val_metric


def test_the_same_cell_again_gives_the_same_ranks_and_another_seed_others(first, tmp_path):
    record, files = first
    np.random.seed(record.seed)  # noqa: NPY002, global state that a careless method would read
    torch.manual_seed(99)
    torch.randn(7)
    again, same = trained(tmp_path / "same", job(record.method))
    assert_same_ranks(files, same)
    assert same.ranks.read_bytes() == files.ranks.read_bytes()
    assert same.weights.read_bytes() == files.weights.read_bytes()
    assert again.settings_sha256 == record.settings_sha256
    _, other = trained(tmp_path / "other", job(record.method, seed=2))
    assert (ranks_in(other)["test_kept"] != ranks_in(files)["test_kept"]).any()


def test_a_diagnostic_that_is_not_finite_costs_no_training(tmp_path, monkeypatch, caplog):
    def probe(self, history_BL, target_B, user_B, noise):
        return {"ratio": torch.full((len(user_B),), torch.nan), "norm": torch.ones(len(user_B))}

    monkeypatch.setattr("baselines.sasrec.SASRec.probe", probe, raising=False)
    record, files = trained(tmp_path / "run")
    assert record.completed and record.diagnostics == {"norm": 1.0}
    assert read_record(files.record) == record
    assert "not recorded, since they are not finite: ratio" in caplog.text


def test_a_diverged_run_is_recorded_with_empty_outputs(tmp_path, caplog):
    record, files = trained(tmp_path, job(model={"learning_rate": 1e30}), tmp_path / "checkpoints")
    assert_failed(record, files, "diverged")
    assert "not finite" in record.reason or "NaN" in record.reason
    assert "diverged" in caplog.text and not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("error", "status"), [(DivergedError, "diverged"), (torch.cuda.OutOfMemoryError, "out_of_memory")]
)
def test_the_epochs_before_a_failure_are_kept(tmp_path, monkeypatch, error, status):
    """Two epochs, then the third fails: its record says two, and history.csv has them, also after a resume."""
    _one_epoch = harness.fit._one_epoch

    def fails_in_the_third(learner, plan, state, evaluator):
        if state.epoch == 2:
            raise error("pretended")
        _one_epoch(learner, plan, state, evaluator)

    every = {"training": {"checkpoint_seconds": 0.0, "max_epochs": 4}}
    interrupted(tmp_path, job(**every), monkeypatch)
    monkeypatch.setattr(harness.fit, "_one_epoch", fails_in_the_third)
    record, files = trained(tmp_path / "run", job(**every), tmp_path / "checkpoints")
    assert (record.status, record.epochs_run) == (status, 2)
    rows = files.history.read_text().splitlines()
    assert rows[0].startswith("epoch,loss") and [row.split(",")[0] for row in rows[1:]] == ["1", "2"]


def test_memory_that_was_short_for_a_moment_costs_no_epochs(tmp_path, monkeypatch):
    every = {"training": {"checkpoint_seconds": 0.0, "max_epochs": 4}}
    undisturbed, files = trained(tmp_path / "undisturbed", job(**every))
    _one_epoch, began = harness.fit._one_epoch, []

    def fails_once(learner, plan, state, evaluator):
        began.append(state.epoch)
        if began == [0, 1, 2]:
            raise torch.cuda.OutOfMemoryError("pretended")
        _one_epoch(learner, plan, state, evaluator)

    monkeypatch.setattr(harness.fit, "_one_epoch", fails_once)
    assert trained(tmp_path / "run", job(**every), tmp_path / "checkpoints")[0].status == "out_of_memory"
    record, again = trained(tmp_path / "run", job(**every), tmp_path / "checkpoints")
    assert record.completed and began == [0, 1, 2, 2, 3]
    assert again.ranks.read_bytes() == files.ranks.read_bytes()


def test_out_of_gpu_memory_is_recorded_with_advice(tmp_path, monkeypatch):
    def out_of_memory(*_, **__):
        raise torch.cuda.OutOfMemoryError("pretended")

    monkeypatch.setattr(run, "fit", out_of_memory)
    record, files = trained(tmp_path)
    assert_failed(record, files, "out_of_memory")
    assert "batch_size" in record.reason


def test_a_divergence_found_only_in_the_last_evaluation_is_recorded(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise NotFiniteError("scores contain NaN")

    monkeypatch.setattr(run.Evaluator, "ranks", broken)
    monkeypatch.setattr(run, "fit", lambda *_, **__: run.FitResult(None, 0, None, 0.0, []))
    record, files = trained(tmp_path)
    assert_failed(record, files, "diverged")


def test_what_kill_9_left_half_written_is_swept_away(tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".weights.123.safetensors", ".record.123.json", ".lock"):
        (tmp_path / "run" / name).write_text("half")
    trained(tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {".finished", ".lock", "history.csv", "ranks.npz", "record.json", "weights.safetensors"}


def interrupted(tmp_path, one, monkeypatch):
    """Train until the first checkpoint has been written, then die."""
    save = run.CheckpointFolder.save

    def dying(self, epoch, state):
        save(self, epoch, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.CheckpointFolder, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "run", one, tmp_path / "checkpoints")
    assert not (tmp_path / "run" / "record.json").exists()


def test_a_killed_run_goes_on_to_the_same_ranks(first, tmp_path, monkeypatch, caplog):
    record, files = first
    caplog.set_level("INFO")
    every = {"training": {"checkpoint_seconds": 0.0}}
    interrupted(tmp_path, job(record.method, **every), monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(run, "fit", refuse_more_than(1, run.fit))
        _, resumed = trained(tmp_path / "run", job(record.method, **every), tmp_path / "checkpoints")
    assert "resumed after epoch 1" in caplog.text
    assert_same_ranks(files, resumed)
    again = read_record(resumed.record)
    assert (record.resumes, again.resumes) == (0, 1)
    assert again.started <= again.finished
    assert not (tmp_path / "checkpoints").exists()
    assert all(kept.samefile(path) for kept, path in zip(resumed.kept.outputs, resumed.outputs, strict=True))
    assert resumed.is_kept()


def test_a_run_ends_as_well_where_there_are_no_hard_links(first, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_files.os, "link", refuse)
    record, undisturbed = first
    _, files = trained(tmp_path / "run", job(record.method), tmp_path / "checkpoints")
    assert_same_ranks(undisturbed, files)
    assert list((tmp_path / "checkpoints").iterdir()), "what is not kept goes on from its last checkpoint"
    assert not list(files.kept.folder.iterdir())


def refuse_more_than(epochs, fit):
    def counted(learner, *arguments, **options):
        batches, begun = learner.batches, []

        def limited():
            begun.append(1)
            assert len(begun) <= epochs, "an epoch was trained twice"
            return batches()

        learner.batches = limited
        return fit(learner, *arguments, **options)

    return counted


def test_a_checkpoint_serves_under_another_time_budget_but_not_other_settings(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    for change, message in (
        ({"training": {"time_budget_seconds": 1e9}}, "resumed after epoch 1"),
        ({"model": {"dropout": 0.4}}, "made by other settings, data or code"),
    ):
        folder = tmp_path / message
        caplog.clear()
        interrupted(folder, job(training={"checkpoint_seconds": 0.0}), monkeypatch)
        trained(folder / "run", job(**change), folder / "checkpoints")
        assert message in caplog.text


def test_identity_covers_what_decides_the_result():
    base = job()
    other = leave_one_out(random_walk(num_users=80, num_items=40, seed=5))
    changes = [
        replace(base, seed=2),
        replace(base, method="x"),
        replace(base, code_digest="y"),
        job(model={"max_len": 9}),
        job(training={"patience": 3}),
    ]
    assert base.identity(SPLIT, Compute()) == job(training={"max_epochs": 99}).identity(SPLIT, Compute())
    cpu, bf16, gpu = Compute(), Compute(precision="bf16"), Compute(torch.device("cuda"))
    identities = {each.identity(SPLIT, cpu) for each in [base, *changes]}
    identities |= {base.identity(other, cpu), base.identity(SPLIT, bf16), base.identity(SPLIT, gpu)}
    assert len(identities) == 9
    assert base.identity(SPLIT, cpu) == base.identity(SPLIT, Compute())


def test_a_checkpoint_in_another_precision_is_not_gone_on_from(tmp_path, monkeypatch, caplog):
    interrupted(tmp_path, job(training={"checkpoint_seconds": 0.0}), monkeypatch)
    bf16 = Compute(precision="bf16")
    record = train(job(), SPLIT, RunFiles(tmp_path / "run"), bf16, tmp_path / "checkpoints")
    assert "in another precision" in caplog.text and record.resumes == 0


def test_a_divergence_error_is_told_apart_from_bugs(tmp_path, monkeypatch):
    def bug(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "fit", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        trained(tmp_path)
    assert issubclass(DivergedError, RuntimeError) and not (tmp_path / "record.json").exists()


def test_the_record_is_strict_json_and_written_last(first):
    _, files = first
    json.loads(files.record.read_text(), parse_constant=lambda name: pytest.fail(name))
    newest = max(filter(Path.is_file, files.folder.iterdir()), key=lambda path: path.stat().st_mtime_ns)
    assert newest == files.record
    assert sorted(path.name for path in files.folder.iterdir()) == [
        ".finished",
        "history.csv",
        "ranks.npz",
        "record.json",
        "weights.safetensors",
    ]


def test_the_progress_line_is_in_percent(first):
    record, _ = first
    assert f"HR@10 {100 * record.metrics['test_kept']['HR@10']:.2f}" in progress_line(record)
    assert progress_line(record).startswith(f"{record.method} on toy, seed 1: ")


def test_weights_that_are_views_of_one_buffer_are_stored(tmp_path):
    """As those of a GRU on a GPU; safetensors refuses them as they are."""
    made = torch.nn.GRU(3, 4)
    values = {name: value.detach().clone() for name, value in made.named_parameters()}
    buffer = torch.cat([value.flatten() for value in values.values()])
    for value, part in zip(made.parameters(), buffer.split([v.numel() for v in values.values()]), strict=True):
        value.data = part.view_as(value)
    run._save_weights(made, tmp_path / "weights.safetensors")
    stored = load_file(tmp_path / "weights.safetensors")
    assert stored.keys() == values.keys() and all(torch.equal(stored[name], values[name]) for name in values)


def test_tied_weights_are_stored_under_both_names(tmp_path):
    made, read = (torch.nn.ModuleDict({"one": torch.nn.Linear(3, 3), "two": torch.nn.Linear(3, 3)}) for _ in range(2))
    for module in (made, read):
        module["two"].weight = module["one"].weight
    run._save_weights(made, tmp_path / "weights.safetensors")
    read.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(read["two"].weight, made["one"].weight)
