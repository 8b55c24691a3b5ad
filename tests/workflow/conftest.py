"""A copy of the repository for tests that edit code or leave outputs; data and ranks of a toy run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cli
from harness.synthetic import random_walk
from tests.workflow.toy_run import argv
from workflow.scripts import train

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("config", "workflow", "profiles", "harness", "aligndiff", "baselines", "analysis", "tests")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return the folder of a copy of what the workflow needs."""
    for name in PARTS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def python_m(checkout: Path) -> Run:
    """Return a function that runs `python -m ...` in the copy, on the CPU."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=900)

    return run


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sequences.npz"
    random_walk(num_users=60, num_items=20, min_length=4, max_length=9).save(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(sequences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert cli.run(train.main, argv(sequences, folder)) == 0
    return (folder / "run" / "ranks.npz").read_bytes()
