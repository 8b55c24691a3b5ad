"""Run records: strict, checked on reading, damage named and never averaged."""

import json

import numpy as np
import pytest

from harness.record import (
    CorruptRecordError,
    RunRecord,
    failures,
    read_ranks,
    read_record,
    write_ranks,
    write_record,
    write_text_atomically,
)


def record(**changes):
    values = {
        "dataset": "toy",
        "method": "sasrec",
        "seed": 1,
        "display": "SASRec",
        "settings": {"model": {"dropout": 0.5}},
        "settings_sha256": "a",
        "data_sha256": "b",
        "code_digest": "c",
        "environment": {"python": "3"},
        "status": "completed",
    }
    return RunRecord(**(values | changes))


@pytest.fixture
def written(tmp_path):
    ranks = {"test_kept": np.array([1, 2, 3]), "test_hidden": np.array([1, 1, 1])}
    one = record(ranks_sha256=write_ranks(tmp_path / "ranks.npz", ranks), metrics={"test_kept": {"HR@5": 0.5}})
    write_record(one, tmp_path / "record.json")
    return tmp_path / "record.json", one


def test_round_trip(written):
    path, one = written
    assert read_record(path) == one
    ranks = read_ranks(path, one)
    assert ranks["test_kept"].tolist() == [1, 2, 3] and ranks["test_kept"].dtype == np.int32
    assert list(path.parent.glob(".*")) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_is_strict_json(tmp_path, value):
    with pytest.raises(ValueError):
        write_record(record(metrics={"test_kept": {"HR@5": value}}), tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


def test_a_record_cut_anywhere_is_named(written):
    path, _ = written
    whole = path.read_text()
    for size in range(0, len(whole.rstrip()), 11):
        path.write_text(whole[:size])
        with pytest.raises(CorruptRecordError, match="record.json.*delete it and run again"):
            read_record(path)


@pytest.mark.parametrize(
    "change",
    [{"schema": 99}, {"status": "fine"}, {"surprise": 1}, {"metrics": {"test_kept": {"HR@5": float("nan")}}}],
)
def test_records_that_say_something_impossible_are_refused(written, change):
    path, _ = written
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptRecordError, match="record.json"):
        read_record(path)


@pytest.mark.parametrize("text", ["[]", "null", "3", "{}", "\x00", '{"status": "completed"}'])
def test_other_json_is_no_record(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(CorruptRecordError, match="record.json"):
        read_record(tmp_path / "record.json")


def test_bytes_that_are_no_text_are_no_record(tmp_path):
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptRecordError, match="record.json"):
        read_record(tmp_path / "record.json")


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(CorruptRecordError, match="record.json"):
        read_record(tmp_path / "record.json")


def test_changed_or_missing_ranks_are_named(written):
    path, one = written
    ranks = path.parent / "ranks.npz"
    whole = bytearray(ranks.read_bytes())
    whole[len(whole) // 2] ^= 1
    ranks.write_bytes(bytes(whole))
    with pytest.raises(CorruptRecordError, match="ranks.npz: digest differs"):
        read_ranks(path, one)
    ranks.unlink()
    with pytest.raises(CorruptRecordError, match="ranks.npz"):
        read_ranks(path, one)


def test_ranks_of_another_run_are_refused(written):
    path, one = written
    write_ranks(path.parent / "ranks.npz", {"test_kept": np.array([1, 1, 1])})
    with pytest.raises(CorruptRecordError, match="digest differs"):
        read_ranks(path, one)


def test_equal_ranks_give_equal_files(tmp_path):
    ranks = {"test_kept": np.arange(1, 50)}
    assert write_ranks(tmp_path / "a.npz", ranks) == write_ranks(tmp_path / "b.npz", ranks)


def test_unknown_rank_arrays_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown arrays \['train'\]"):
        write_ranks(tmp_path / "ranks.npz", {"train": np.array([1])})


def test_only_completed_runs_are_completed():
    assert record().completed
    assert not record(status="diverged").completed
    with pytest.raises(CorruptRecordError, match="completed, diverged, out_of_memory"):
        record(status="running")


def test_atomic_text_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    write_text_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_runs_without_a_result_are_listed_with_their_reason(tmp_path):
    paths = [tmp_path / f"{seed}.json" for seed in range(1, 6)]
    for seed, path in enumerate(paths[:4], start=1):
        failed = {"status": "diverged", "reason": f"NaN {seed}"} if seed > 1 else {}
        write_record(record(seed=seed, **failed), path)
    assert failures(paths, most=2) == [
        "toy/sasrec/seed2: diverged, NaN 2",
        "toy/sasrec/seed3: diverged, NaN 3",
        "and 1 more",
    ]
    assert failures(paths[:1]) == failures(paths[4:]) == []
