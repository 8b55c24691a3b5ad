"""Compute: every switch does what it says, and only on its own device."""

import io
import os

import pytest
import torch

from harness import compute
from harness.compute import Compute, ComputeSettings, choose, describe, evaluation_mode, rounds_alike


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """`choose` prepares a whole process; put this one back."""
    monkeypatch.setattr(compute, "keep_freed_memory", lambda: None)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.fixture
def pretend_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_a_demanded_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match="a GPU was demanded, or seen by the driver, but torch sees none.* set compute.device to 'cpu'"
    ):
        choose(ComputeSettings(device="cuda"))
    assert choose(ComputeSettings()).device.type == "cpu"


def test_device_auto_takes_a_gpu_and_cpu_does_not(pretend_gpu):
    assert choose(ComputeSettings()).is_cuda
    assert choose(ComputeSettings(device="cuda")).is_cuda
    assert not choose(ComputeSettings(device="cpu")).is_cuda


def test_threads_and_determinism_reach_torch():
    choose(ComputeSettings(device="cpu", threads=2, deterministic=True))
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("precision", "onednn", "tf32"),
    [("fp32", False, False), ("fp32", True, False), ("tf32", False, True), ("tf32", True, True), ("bf16", True, False)],
)
def test_tf32_on_a_gpu_is_what_precision_says_whatever_onednn_says(pretend_gpu, precision, onednn, tf32):
    choose(ComputeSettings(precision=precision, onednn=onednn))
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.parametrize(("onednn", "expected"), [(False, "highest"), (True, "medium")])
def test_onednn_is_a_switch_of_the_cpu(onednn, expected):
    choose(ComputeSettings(device="cpu", onednn=onednn))
    assert torch.get_float32_matmul_precision() == expected


def test_autocast_only_for_bf16():
    x = torch.ones(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        with Compute(precision=precision).autocast():
            assert (x @ x).dtype == dtype


@pytest.mark.parametrize("values", [{"threads": 0}, {"jobs_per_gpu": 0}, {"threads": -1}])
def test_impossible_counts_are_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}: .* legal values are"):
        ComputeSettings(**values)


def test_the_environment_names_what_decides_numbers():
    found = describe(Compute(precision="bf16"))
    assert found["torch"] == torch.__version__ and found["precision"] == "bf16" and found["device"] == "cpu"
    needed = {"python", "numpy", "cpu", "threads", "deterministic_algorithms", "float32_matmul_precision", "platform"}
    assert needed <= found.keys()


def test_peak_memory_is_in_bytes():
    assert 10e6 < Compute().peak_memory_bytes() < 1e12


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_puts_the_module_back_even_after_an_error(training):
    module = torch.nn.Sequential(torch.nn.Dropout(0.5)).train(training)
    with pytest.raises(KeyError), evaluation_mode(module):
        assert not module.training and not module[0].training
        raise KeyError
    assert module.training is training and module[0].training is training


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            "processor: 0\ncpu family : 25\nmodel : 1\nmodel name : Some CPU\n\nprocessor: 1\n",
            "Some CPU (family 25, model 1)",
        ),
        ("processor: 0\nmodel name : Some CPU\n", "Some CPU"),
    ],
)
def test_generations_of_one_name_are_told_apart(told, expected, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(told))
    assert describe(Compute())["cpu"] == expected


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({}, True),
        ({"cpu": "another", "torch": "2.6.0", "python": "3.13.0", "platform": "x"}, True),
        ({"threads": 7}, False),
        ({"precision": "bf16"}, False),
        ({"emulated_products": True}, False),
        ({"deterministic_algorithms": True}, False),
        ({"float32_matmul_precision": "medium"}, False),
        ({"device": "NVIDIA H200"}, False),
    ],
)
def test_environments_round_alike_if_what_the_configuration_decides_is_the_same(change, alike):
    here = describe(Compute())
    assert rounds_alike(here, here | change) is rounds_alike(here | change, here) is alike


def test_on_a_gpu_neither_its_model_nor_the_threads_decide():
    here = describe(Compute()) | {"device": "NVIDIA H200"}
    assert rounds_alike(here, here | {"device": "NVIDIA A100", "threads": 7})
