"""The lock of a run's folder, held by real processes."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import lock
from harness.lock import is_held, sole_writer

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time, pathlib
from harness.lock import sole_writer
with sole_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path for as long as it lives."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_without_another_process_nothing_is_waited_for_and_nothing_stays(tmp_path):
    with sole_writer(tmp_path / "new") as waited:
        assert not waited
        assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_second_process_waits_and_says_so_until_kill_9_ends_the_first(tmp_path, holder, caplog):
    assert is_held(tmp_path)
    timer = threading.Timer(0.5, os.kill, (holder.pid, signal.SIGKILL))
    timer.start()
    began = time.monotonic()
    with sole_writer(tmp_path, poll=0.02) as waited:
        assert waited and time.monotonic() - began > 0.3
    assert "another process is writing this run" in caplog.text and str(tmp_path) in caplog.text
    assert len(caplog.records) == 1
    assert not is_held(tmp_path)


def test_a_lock_left_by_kill_9_is_not_held(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists() and not is_held(tmp_path)
    os.utime(tmp_path / ".lock", (0, 0))
    with sole_writer(tmp_path):
        age = time.time() - (tmp_path / ".lock").stat().st_mtime
    assert age < 60, "its date says since when the process that holds it runs"


def test_never_two_inside_at_a_time(tmp_path):
    inside, seen = [], []

    def enter():
        for _ in range(20):
            with sole_writer(tmp_path, poll=0.001):
                inside.append(1)
                seen.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 80


def test_a_file_system_without_locks_is_said_and_used_all_the_same(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with sole_writer(tmp_path) as waited:
        assert not waited
        assert not lock.is_held(tmp_path), "nobody can tell"
    assert "has no locks" in caplog.text
