"""Train small cells several times with one seed, with and without the deterministic mode, and say what varies.

python -m benchmarks.gpu_determinism         prints the figures, writes benchmarks/records/gpu_determinism.json

Each training is a process of its own, as in the workflow. Data are synthetic: what varies depends on operations and
sizes, not on what the items mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import harness.cli
from harness.digest import ROOT, file_sha256
from harness.record import read_ranks, read_record, write_text_atomically
from harness.synthetic import random_walk

METHODS = ("sasrec", "gru4rec", "comirec", "diffurec", "aligndiff")
MODES = {"deterministic": True, "default": False}
NO_GPU = (
    "no GPU: torch sees no CUDA device, and what varies on one cannot be measured without; nothing was run and no "
    "record was written"
)


def train_once(sequences: Path, folder: Path, method: str, compute: dict[str, Any], epochs: int) -> Path:
    """Run one training as the workflow does; return its record's path.  Raises ValueError with what it said."""
    overrides = {"training": {"max_epochs": epochs, "first_eval": 1, "eval_every": 1}}
    command = [sys.executable, "-m", "workflow.scripts.train", "--sequences", str(sequences), "--dataset", "synthetic"]
    command += ["--method", method, "--seed", "1", "--overrides", json.dumps(overrides)]
    command += ["--compute", json.dumps(compute), "--out", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode or not read_record(folder / "record.json").completed:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise ValueError(f"{method} with {compute} did not complete: {said[-1] if said else result.returncode}")
    return folder / "record.json"


def compare(records: Sequence[Path]) -> dict[str, Any]:
    """What differs between runs of one seed: ranks, weights, metric, and what a training took."""
    runs = [read_record(path) for path in records]
    ranks = [read_ranks(path, run)["test_kept"] for path, run in zip(records, runs, strict=True)]
    metric = [100 * run.metrics["test_kept"]["NDCG@10"] for run in runs]
    return {
        "runs": len(runs),
        "different_ranks": len({rank_U.tobytes() for rank_U in ranks}),
        "different_weights": len({file_sha256(path.with_name("weights.safetensors")) for path in records}),
        "share_of_users_whose_rank_varies": float(np.mean(np.ptp(np.stack(ranks), axis=0) > 0)),
        "ndcg_10_percent": {"least": min(metric), "most": max(metric)},
        "train_seconds_median": statistics.median(run.train_seconds for run in runs),
        "deterministic_in_records": sorted({bool(run.environment["deterministic_algorithms"]) for run in runs}),
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train every method in both modes, in turn, so that a change of the machine meets both."""
    sequences = folder / "sequences.npz"
    random_walk(num_users=options.users, num_items=options.items).save(sequences)
    found: dict[str, Any] = {}
    for method in options.methods:
        records: dict[str, list[Path]] = {name: [] for name in MODES}
        for number in range(options.runs):
            for name, deterministic in MODES.items():
                compute = {"device": options.device, "deterministic": deterministic}
                place = folder / method / name / str(number)
                records[name].append(train_once(sequences, place, method, compute, options.epochs))
        found[method] = {name: compare(paths) for name, paths in records.items()}
        print(f"{method}: {json.dumps(found[method])}", flush=True)
        environment = read_record(records["default"][0]).environment
    return {"methods": found, "environment": environment}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_determinism", description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--runs", type=int, default=5, help="per method and mode (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the command itself")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "gpu_determinism.json")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(NO_GPU)
    if options.runs < 2:
        raise ValueError(f"--runs {options.runs}: one run shows no difference; at least 2")
    sizes = {name: getattr(options, name) for name in ("runs", "epochs", "users", "items", "device")}
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(options, Path(temporary))
    text = json.dumps({"command": "python -m benchmarks.gpu_determinism", "sizes": sizes} | found, indent=1)
    write_text_atomically(options.out, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
