"""The committed record of parity: one entry per method, replaced when that method is compared again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch

from harness.compute import Compute, describe
from harness.files import replacing
from tests.parity.checkouts import ROOT, module_of

RECORD = ROOT / "baselines" / "parity.json"
TOLERANCE: Final = 1e-6  # of relative differences, where both sides compute in float64


def measure(method: str, checkout: Path) -> dict[str, Any]:
    """Compare one method with its reference and return its entry."""
    module = module_of(method)
    return {
        "repository": module.REPOSITORY,
        "commit": module.COMMIT,
        "differences": module.compare(checkout),
        "command": f"python -m tests.parity {method}",
        "environment": describe(Compute(torch.device("cpu"))) | {"precision": "fp64"},
    }


def too_large(differences: dict[str, float]) -> dict[str, float]:
    """Those above the tolerance."""
    return {name: value for name, value in differences.items() if not value <= TOLERANCE}


def load(path: Path = RECORD) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(entries: dict[str, Any], path: Path = RECORD) -> None:
    """Write `entries` over those of the same methods; the others stay."""
    text = json.dumps(load(path) | entries, indent=1, sort_keys=True, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
