"""What all tests share: one thread per process, and the folder of processed reference data."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the first import of numpy or torch


@pytest.fixture(scope="session", autouse=True)
def single_torch_thread():
    """Keep torch on one thread, so that sums have one order and parallel test processes do not compete."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of specifications and reference data beside the repository, or skip the test."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("ALIGNDIFF_SHARED", beside))
    if not path.is_dir():
        pytest.skip(f"no reference data at {path}; name its folder with ALIGNDIFF_SHARED")
    return path
