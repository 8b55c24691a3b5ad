"""References in TensorFlow 1: the authors' code runs under an interpreter of its own, and arrays travel in files.

It needs Python 3.7 and TensorFlow 1.15, which nothing else here could share an environment with:

    python3.7 -m venv resources/tensorflow1
    resources/tensorflow1/bin/pip install tensorflow==1.15.5 'protobuf<3.21'

The environment variable ALIGNDIFF_TENSORFLOW1 names another interpreter.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.parity.checkouts import ROOT

GRAPHS = Path(__file__).parent / "graphs"


def interpreter() -> Path:
    return Path(os.environ.get("ALIGNDIFF_TENSORFLOW1", ROOT / "resources" / "tensorflow1" / "bin" / "python"))


def obstacle() -> str | None:
    """What is missing to run these references, None if nothing."""
    path = interpreter()
    return None if path.exists() else f"{path} does not exist; tests/parity/tensorflow1.py says how to make it"


def runtime() -> str:
    """Versions, for the record."""
    ask = "import sys, pkg_resources as p; print(p.get_distribution('tensorflow'), 'Python', sys.version.split()[0])"
    return subprocess.run([interpreter(), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def run(graph: str, checkout: Path, arrays: Mapping[str, Tensor | np.ndarray | int | str]) -> dict[str, Tensor]:
    """What graphs/<graph>.py makes of `arrays` with the reference's code; for the names see graphs/session.py.

    Raises RuntimeError with the end of its messages if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        np.savez(given, **{name: np.asarray(value) for name, value in arrays.items()})
        command = [str(interpreter()), "-B", str(GRAPHS / f"{graph}.py"), str(checkout), str(given), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"{graph} under TensorFlow 1: {done.stderr[-2000:]}")
        with np.load(made) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}


def parameters(made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with gradients in `.grad`, by variable name; kernels [..., in, out] as torch has them, [out, in]."""
    result = _values("weight/", made)
    for name, gradient in _values("gradient/", made).items():
        result[name].grad = gradient
    return result


def initial(made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as the reference initialises them, laid out like `parameters`."""
    return _values("initial/", made)


def _values(kind: str, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = (key.removeprefix(kind) for key in made if key.startswith(kind))
    return {name: _as_torch(name, made[kind + name]) for name in names}


def _as_torch(name: str, value: Tensor) -> Tensor:
    if not name.endswith("kernel"):
        return value.clone()
    return value.reshape(value.shape[-2:]).T.contiguous()
