"""Checkpoints: torn, foreign and hostile ones are discarded with a message, and the one before is used."""

import hashlib
import os
import pickle

import pytest
import torch

from harness import checkpoint
from harness.checkpoint import KEEP, CheckpointFolder
from harness.streams import Streams


def state(epoch):
    return {"weights": torch.full((3,), float(epoch)), "history": [{"loss": 0.5}], "best": None, "rng": 2**100}


@pytest.fixture
def folder(tmp_path):
    one = CheckpointFolder(tmp_path / "seed1", identity="mine")
    one.save(1, state(1))
    one.save(2, state(2))
    return one


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "seed1").iterdir())


def test_nothing_saved_means_nothing_loaded(tmp_path):
    assert CheckpointFolder(tmp_path / "none", identity="mine").load() is None
    CheckpointFolder(tmp_path / "none", identity="mine").remove()


def test_the_newest_is_loaded(folder):
    epoch, found = folder.load()
    assert epoch == 2 and found["weights"].tolist() == [2.0] * 3
    assert found["rng"] == 2**100 and found["history"] == [{"loss": 0.5}]


def test_generator_states_round_trip(tmp_path):
    folder, streams = CheckpointFolder(tmp_path / "a", identity="mine"), Streams(1)
    torch.randn(5, generator=streams.torch("b"))
    folder.save(1, streams.state_dict())
    expected = torch.randn(1, generator=streams.torch("b")).item()
    other = Streams(1)
    other.load_state_dict(folder.load()[1])
    assert torch.randn(1, generator=other.torch("b")).item() == expected


def test_at_most_two_are_kept_in_order_of_epochs(tmp_path, folder):
    for epoch in (9, 10, 100, 1000):
        folder.save(epoch, state(epoch))
    assert files(tmp_path) == ["epoch-000100.ckpt", "epoch-001000.ckpt"] and KEEP == 2
    assert folder.load()[0] == 1000


def test_one_torn_at_any_byte_is_discarded_and_the_one_before_used(tmp_path, folder, caplog):
    path = tmp_path / "seed1" / "epoch-000002.ckpt"
    whole = path.read_bytes()
    for size in [*range(0, 130), *range(130, len(whole), 97)]:
        path.write_bytes(whole[:size])
        caplog.clear()
        epoch, found = folder.load()
        assert epoch == 1 and found["weights"].tolist() == [1.0] * 3
        assert "epoch-000002.ckpt: torn or damaged" in caplog.text
        assert not path.exists()


def test_a_flipped_bit_anywhere_is_noticed(tmp_path, folder):
    path = tmp_path / "seed1" / "epoch-000002.ckpt"
    whole = path.read_bytes()
    for place in range(0, len(whole), 53):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(bytes(damaged))
        assert folder.load()[0] == 1


def test_all_torn_means_a_fresh_start(tmp_path, folder):
    for path in (tmp_path / "seed1").iterdir():
        path.write_bytes(b"")
    assert folder.load() is None
    assert files(tmp_path) == []


def test_a_foreign_one_is_discarded_with_a_message(tmp_path, folder, caplog):
    assert CheckpointFolder(tmp_path / "seed1", identity="other").load() is None
    assert "made by other settings, data or code" in caplog.text
    assert files(tmp_path) == []


def test_it_says_which_kind_of_device_made_the_newest(tmp_path, folder):
    assert folder.made_elsewhere() is None, "made here"
    gpu = CheckpointFolder(tmp_path / "gpu", identity="x", device="cuda")
    assert gpu.made_elsewhere() is None, "nothing there"
    gpu.save(3, {"epoch": 3})
    assert CheckpointFolder(tmp_path / "gpu", identity="other settings").made_elsewhere() == "cuda"
    assert list((tmp_path / "gpu").iterdir()), "looking discards nothing"


class Exploding:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def write_signed(path, payload):
    """A checkpoint whose digest is right, as someone who knows the format could write it."""
    path.write_bytes(hashlib.sha256(payload).hexdigest().encode() + payload)


def test_code_in_a_pickle_is_not_executed(tmp_path, folder, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "seed1" / "epoch-000003.ckpt"
    write_signed(path, pickle.dumps({"identity": "mine", "epoch": 3, "state": Exploding()}, protocol=2))
    assert folder.load()[0] == 2
    torch.save({"identity": "mine", "epoch": 3, "state": Exploding()}, tmp_path / "bare")
    write_signed(path, (tmp_path / "bare").read_bytes())
    assert folder.load()[0] == 2
    assert not (tmp_path / "exploded").exists()
    assert caplog.text.count("not a checkpoint of this suite") == 2


@pytest.mark.parametrize("content", [b"", b"nonsense", [1, 2], {"epoch": 3}, "text", torch.ones(2)])
def test_other_signed_content_is_discarded(tmp_path, folder, content):
    path = tmp_path / "seed1" / "epoch-000003.ckpt"
    if not isinstance(content, bytes):
        torch.save(content, tmp_path / "bare")
        content = (tmp_path / "bare").read_bytes()
    write_signed(path, content)
    assert folder.load()[0] == 2
    assert not path.exists()


def test_a_kill_while_writing_leaves_the_old_ones_and_no_pile_of_leftovers(tmp_path, folder, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    monkeypatch.setattr(checkpoint.os, "replace", killed)
    with pytest.raises(Killed):
        folder.save(3, state(3))
    assert files(tmp_path) == ["epoch-000001.ckpt", "epoch-000002.ckpt"]
    monkeypatch.undo()
    (tmp_path / "seed1" / ".writing").write_bytes(b"left by kill -9")
    folder.save(3, state(3))
    assert files(tmp_path) == ["epoch-000002.ckpt", "epoch-000003.ckpt"]


def test_a_full_disk_leaves_the_old_ones(tmp_path, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.save(3, state(3))
    assert files(tmp_path) == ["epoch-000001.ckpt", "epoch-000002.ckpt"]
    assert folder.load()[0] == 2


def test_remove_leaves_no_trace(tmp_path, folder):
    (tmp_path / "seed1" / ".writing").write_bytes(b"left by kill -9")
    folder.remove()
    assert not (tmp_path / "seed1").exists()


def test_remove_spares_what_it_did_not_make(tmp_path, folder):
    (tmp_path / "seed1" / "notes.txt").write_text("mine")
    folder.remove()
    assert files(tmp_path) == ["notes.txt"]
