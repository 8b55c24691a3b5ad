"""The committed record of parity: one entry per method."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, Final

import torch

from harness.compute import Compute, describe
from harness.files import replacing
from tests.parity.checkouts import ROOT, module_of
from tests.parity.exchange import INITIAL

RECORD = ROOT / "baselines" / "parity.json"
TOLERANCE: Final = 1e-6  # of relative differences, where both sides compute in float64
STANDARD_ERRORS: Final = 5.0  # of initial weights, which are samples: the largest of some 200 comparisons


def measure(method: str, checkout: Path) -> dict[str, Any]:
    """Compare one method with its reference and return its entry."""
    module = module_of(method)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # references print
        differences = module.compare(checkout)
    entry = {
        "repository": module.REPOSITORY,
        "commit": module.COMMIT,
        "differences": differences,
        "command": f"python -m tests.parity {method}",
        "environment": environment("fp64"),
    }
    return entry | ({"reference_runtime": module.runtime()} if hasattr(module, "runtime") else {})


def environment(precision: str) -> dict[str, Any]:
    """Versions and machine, as in run records."""
    return describe(Compute(torch.device("cpu"))) | {"precision": precision}


def too_large(differences: dict[str, float]) -> dict[str, float]:
    """Those above their tolerance."""
    limits = {name: STANDARD_ERRORS if name.endswith(INITIAL) else TOLERANCE for name in differences}
    return {name: value for name, value in differences.items() if not value <= limits[name]}


def load(path: Path = RECORD) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(entries: dict[str, Any], path: Path = RECORD) -> None:
    """Write `entries` over the same keys of the same methods; the others stay."""
    merged = load(path)
    for method, entry in entries.items():
        merged[method] = merged.get(method, {}) | entry
    text = json.dumps(merged, indent=1, sort_keys=True, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
