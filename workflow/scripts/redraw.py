"""Rank a trained run again with other draws of the noise that it ranks with: what of its figures is that draw?

    python -m workflow.scripts.redraw --sequences data/beauty/sequences.npz \
        --record runs/beauty/aligndiff.tuned/seed1/record.json --draws 3 --out draws.json

For models that draw noise when they rank (AlignDiff, DiffuRec, ACVAE); with the others nothing moves. The weights stay
the same, so another training would move the figures more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import harness.cli
from harness import compute, gpu
from harness.compute import Compute, describe, evaluation_mode
from harness.digest import code_digest
from harness.methods import builder_file
from harness.metrics import summarise
from harness.ranking import Ranks
from harness.record import RunRecord, read_ranks, read_record, write_text_atomically
from harness.run import evaluator_of, load_learner
from harness.settings import from_mapping
from harness.split import Sequences, Split, leave_one_out
from harness.streams import derive_seed

IDENTITY = ("dataset", "method", "seed", "data_sha256", "code_digest", "settings_sha256", "ranks_sha256")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.redraw", description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", required=True, type=Path)
    parser.add_argument("--record", required=True, type=Path, help="record.json of the run, weights beside it")
    parser.add_argument("--compute", type=json.loads, default="{}", help="JSON, as for workflow.scripts.train")
    parser.add_argument("--draws", type=int, default=3, help="draws beside the run's own")
    parser.add_argument("--out", required=True, type=Path, help="JSON with the figures of each draw, fractions")
    options = parser.parse_args(argv)
    if options.draws < 1:
        parser.error(f"--draws {options.draws}: 1 or more")
    record = read_record(options.record)
    split = leave_one_out(Sequences.load(options.sequences), dataset=record.dataset)
    settings = from_mapping(compute.ComputeSettings, options.compute, where="compute")
    devices = [] if settings.device == "cpu" else gpu.visible_devices()
    with gpu.gpu_slot(devices, per_device=settings.jobs_per_gpu):
        device = compute.choose(settings)
        found = redraw(options.record, record, split, device, options.draws)
    text = json.dumps(found | {"environment": describe(device)}, indent=2, allow_nan=False)
    write_text_atomically(options.out, text + "\n")
    return 0


def redraw(path: Path, record: RunRecord, split: Split, device: Compute, draws: int) -> dict[str, Any]:
    """Test figures of the run and of `draws` others from its weights, and their standard deviation over all of them.

    Each further draw says for which share of the users the rank of the target, seen items kept, is another one. What
    identifies the run is copied from its record; redraw_code_digest is of the code that ranked it again.
    """
    if not record.completed:
        raise ValueError(f"{path}: {record.status}; only a completed run can be ranked again")
    learner = load_learner(path, record, split, device)
    own = read_ranks(path, record)
    seen: list[dict[str, Any]] = [_figures(Ranks(own["test_kept"], own["test_hidden"]))]
    for draw in range(1, draws + 1):
        seed = derive_seed(record.seed, f"draw {draw}")
        evaluator = evaluator_of(record.settings, split, "test", learner, seed, device)
        with device.products(), evaluation_mode(learner.module):
            found = evaluator.ranks(learner.score)
        seen.append(_figures(found) | {"ranks_changed": float((found.kept_U != own["test_kept"]).mean())})
    spread = {
        part: {name: float(np.std([figures[part][name] for figures in seen], ddof=1)) for name in values}
        for part, values in seen[0].items()
    }
    identity = {name: getattr(record, name) for name in IDENTITY}
    ours = code_digest(Path(__file__), builder_file(record.settings["builder"]))
    return identity | {"redraw_code_digest": ours, "draws": seen, "standard_deviation": spread}


def _figures(ranks: Ranks) -> dict[str, Any]:
    return {"test_kept": summarise(ranks.kept_U), "test_hidden": summarise(ranks.hidden_U)}


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
