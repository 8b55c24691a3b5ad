"""Export what a trained diffusion model generates for each test user, and the embedding of the true next item.

Both live in the model's own embedding space. Table 5 (MMD) and Figure 4 compare the two clouds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import harness.cli
from harness import compute, gpu
from harness.compute import evaluation_mode
from harness.files import replacing
from harness.record import RunRecord, read_record
from harness.run import evaluator_of, load_learner
from harness.settings import from_mapping
from harness.split import Sequences, Split, leave_one_out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.represent", description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", required=True, type=Path)
    parser.add_argument("--record", required=True, type=Path, help="record.json of the run, weights beside it")
    parser.add_argument("--compute", type=json.loads, default="{}", help="JSON, as for workflow.scripts.train")
    parser.add_argument(
        "--sample", type=int, help="keep this many users, drawn at random, in half precision: for Figure 4"
    )
    parser.add_argument("--out", required=True, type=Path, help="npz with `generated` and `truth`, [users, width]")
    options = parser.parse_args(argv)
    record = read_record(options.record)
    split = leave_one_out(Sequences.load(options.sequences), dataset=record.dataset)
    settings = from_mapping(compute.ComputeSettings, options.compute, where="compute")
    devices = [] if settings.device == "cpu" else gpu.visible_devices()
    with gpu.gpu_slot(devices, per_device=settings.jobs_per_gpu):
        # A run that ended early has nothing to show, which its record says already.
        empty = np.empty((0, 0), dtype=np.float32)
        generated_UD, truth_UD = export(options, record, split, settings) if record.completed else (empty, empty)
    if options.sample is not None:
        generated_UD, truth_UD = sample(generated_UD, truth_UD, options.sample)
    with replacing(options.out) as path, open(path, "wb") as file:
        np.savez_compressed(file, generated=generated_UD, truth=truth_UD)
    return 0


def sample(
    generated_UD: NDArray[np.float32], truth_UD: NDArray[np.float32], size: int
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """The same users of every run on a dataset, for files small enough to be kept with the records."""
    rows = np.random.default_rng(0).permutation(len(truth_UD))[:size]
    return generated_UD[rows].astype(np.float16), truth_UD[rows].astype(np.float16)


def export(
    options: argparse.Namespace, record: RunRecord, split: Split, settings: compute.ComputeSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Generated vector and target embedding of each test user, both [U, D].  Raises ValueError if it has none."""
    device = compute.choose(settings)
    learner = load_learner(options.record, record, split, device)
    if not hasattr(learner, "represent"):
        raise ValueError(f"{record.method}: generates no representation; list diffusion models in analysis.mmd")
    evaluator = evaluator_of(record.settings, split, "test", learner, record.seed, device)
    with device.products(), evaluation_mode(learner.module):
        generated_UD, target_U = evaluator.representations(learner.represent)
        table_ID = learner.item_table().detach().float().cpu().numpy()
    return generated_UD, table_ID[target_U]


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
