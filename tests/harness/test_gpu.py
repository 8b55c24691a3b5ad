"""GPU slots on pretended devices, held by real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from harness import gpu
from harness.gpu import gpu_slot, visible_devices


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(gpu, "_built_for_cpus", lambda: False)
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))


JOB = """
import sys, time
from harness import gpu
gpu.tempfile.gettempdir = lambda: {folder!r}
with gpu.gpu_slot({devices!r}, per_device={per_device}, poll=0.01) as device:
    import os
    assert os.environ["CUDA_VISIBLE_DEVICES"] == device
    print(device, time.monotonic(), end=" ", flush=True)
    time.sleep({seconds})
    print(time.monotonic(), flush=True)
"""


def start(folder, *, devices=("a", "b"), per_device=1, seconds=0.15):
    code = JOB.format(folder=str(folder), devices=list(devices), per_device=per_device, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=gpu.__file__[:-15])


def spans(jobs):
    rows = [job.communicate(timeout=60)[0].split() for job in jobs]
    return [(device, float(begin), float(end)) for device, begin, end in rows]


def most_at_once(rows, device):
    moments = [begin for name, begin, _ in rows if name == device]
    return max(sum(b <= moment < e for name, b, e in rows if name == device) for moment in moments)


@pytest.mark.parametrize("per_device", [1, 2])
def test_jobs_share_devices_as_told_and_use_them_all(tmp_path, per_device):
    rows = spans([start(tmp_path, per_device=per_device) for _ in range(6)])
    assert {device for device, *_ in rows} == {"a", "b"}
    assert all(most_at_once(rows, device) <= per_device for device in "ab")


def test_a_second_job_goes_to_the_idle_device_first():
    with gpu_slot(["a", "b"], per_device=2) as first, gpu_slot(["a", "b"], per_device=2) as second:
        assert {first, second} == {"a", "b"}
        with gpu_slot(["a", "b"], per_device=2) as third:
            assert third == "a"


def test_kill_9_frees_the_device(tmp_path):
    job = start(tmp_path, devices=["a"], seconds=60)
    assert job.stdout.read(1) == "a"
    descriptor = None
    with pytest.raises(TimeoutError):
        descriptor = acquire_within(0.1, tmp_path)
    assert descriptor is None
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    job.stdout.close()
    os.close(acquire_within(5, tmp_path))


def acquire_within(seconds, folder):
    """What a waiting job does, with an end to its patience."""
    deadline = time.monotonic() + seconds
    original = time.sleep

    def sleep(duration):
        if time.monotonic() > deadline:
            raise TimeoutError
        original(duration)

    gpu.time.sleep = sleep
    try:
        return gpu._acquire(folder / f"gpu-slots-{os.getuid()}", ["a"], 1, 0.01)[0]
    finally:
        gpu.time.sleep = original


def test_an_error_inside_frees_the_device():
    with pytest.raises(KeyError), gpu_slot(["a"]):
        raise KeyError
    with gpu_slot(["a"]) as device:
        assert device == "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0,1", ["0", "1"]), ("3", ["3"]), ("", []), ("-1", []), (" 2 , GPU-abc", ["2", "GPU-abc"])],
)
def test_the_users_choice_of_devices_is_respected(monkeypatch, value, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_devices() == expected


def test_only_the_held_device_is_visible_inside():
    with gpu_slot(["GPU-1/2"]) as device:
        assert device == "GPU-1/2" == os.environ["CUDA_VISIBLE_DEVICES"]


def test_leaving_gives_the_users_choice_back():
    with gpu_slot(["1"]):
        pass
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_without_devices_or_under_slurm_nothing_is_locked(monkeypatch, tmp_path):
    with gpu_slot([]) as device:
        assert device == "0,1"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with gpu_slot(["a"]) as device:
        assert device == "0,1"
    assert list(tmp_path.iterdir()) == []


def test_jobs_within_one_allocation_of_several_devices_share_them_out(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with gpu_slot(["a", "b"]) as first, gpu_slot(["a", "b"]) as second:
        assert {first, second} == {"a", "b"}


def test_two_allocations_on_one_node_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with gpu_slot(["0", "1"]) as first:
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        with gpu_slot(["0", "1"]) as second:
            assert first == second == "0"


def test_a_torch_built_for_cpus_has_no_device(monkeypatch):
    monkeypatch.setattr(gpu, "_built_for_cpus", lambda: True)
    assert visible_devices() == []


def test_no_driver_means_no_device(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert visible_devices() == []
