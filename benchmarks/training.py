"""Training steps: the fast path against the plain one, step by step in turn, in one process.

    python -m benchmarks.training --sequences results/paper/data/beauty/sequences.npz [--threads 2] [--steps 7]

Plain: windows padded to their full width, one slice per batch, torch's own dropout, the score matrix as a whole. Both
do the same mathematics; tests hold them equal. Without --sequences a generated dataset of Beauty's shape is used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import harness.cli
from harness import layers, losses
from harness.compute import ComputeSettings, choose, describe
from harness.learner import Learner
from harness.methods import build_learner, load_method
from harness.record import write_text_atomically
from harness.split import Sequences, TrainingView, leave_one_out
from harness.streams import Streams

RECORD = Path(__file__).parent / "records" / "training.json"

# Method, and what makes its batches plain.
CASES: dict[str, dict[str, Any]] = {
    "sasrec.tuned": {"length_slices": 1},
    "diffurec.keys": {"length_slices": 1},
    "diffurec": {},
    "aligndiff": {"slices": 1},
}


def generated(seed: int = 0) -> Sequences:
    """Random sequences with Beauty's numbers of users and items and about its lengths."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(5 + rng.geometric(0.26, 22363) - 1, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(rng.integers(1, 12102, offsets[-1]).astype(np.int32), offsets, 12101)


@contextlib.contextmanager
def plain_parts(learner: Learner) -> Iterator[None]:
    """Inside, the learner pads whole windows, draws torch's dropout and makes all scores at once."""
    module = sys.modules[type(learner).__module__]
    name = "softmax_cross_entropy"
    swap = mock.patch.object(module, name, losses.plain_softmax_cross_entropy) if hasattr(module, name) else None
    with mock.patch.object(layers.Dropout, "plain", True), swap or contextlib.nullcontext():
        yield


def seconds_of_a_step(learner: Learner, batches: Iterator[Any]) -> float:
    batch = next(batches)
    began = time.perf_counter()
    learner.training_step(batch)
    return time.perf_counter() - began


def measure(name: str, view: TrainingView, compute: Any, steps: int) -> dict[str, float]:
    """Median step of both paths and the median of their ratios."""
    method = load_method(name)
    fast = build_learner(method.resolved("beauty"), view, Streams(1), compute)
    plain = build_learner(method.resolved("beauty", {"model": CASES[name]}), view, Streams(1), compute)
    if hasattr(plain.sampler, "_trim"):
        plain.sampler._trim = False
    sources = [learner.batches() for learner in (fast, plain)]
    times = []
    for _ in range(steps + 1):  # the first round warms up
        quick = seconds_of_a_step(fast, sources[0])
        with plain_parts(plain):
            slow = seconds_of_a_step(plain, sources[1])
        times.append((quick, slow))
    quick_S, slow_S = np.array(times[1:]).T
    ratio_S = slow_S / quick_S
    epoch = fast.sampler.num_samples / method.resolved("beauty")["model"]["batch_size"] * np.median(quick_S)
    return {
        "fast_seconds": float(np.median(quick_S)),
        "plain_seconds": float(np.median(slow_S)),
        "ratio": float(np.median(ratio_S)),
        "ratio_least": float(ratio_S.min()),
        "ratio_most": float(ratio_S.max()),
        "fast_epoch_seconds": float(epoch),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--methods", nargs="*", default=list(CASES), choices=list(CASES))
    options = parser.parse_args(argv)
    compute = choose(ComputeSettings(threads=options.threads))
    sequences = Sequences.load(options.sequences) if options.sequences else generated()
    view = leave_one_out(sequences, dataset="beauty").training_view()
    found = {}
    for name in options.methods:
        found[name] = measure(name, view, compute, options.steps)
        line = found[name]
        print(
            f"{name:16} fast {line['fast_seconds']:.3f} s, plain {line['plain_seconds']:.3f} s, ratio "
            f"{line['ratio']:.1f} [{line['ratio_least']:.1f}..{line['ratio_most']:.1f}], "
            f"epoch {line['fast_epoch_seconds']:.0f} s",
            flush=True,
        )
    content = {"data": "generated" if options.sequences is None else options.sequences.name, "methods": found}
    content |= {"steps": options.steps, "environment": describe(compute)}
    write_text_atomically(RECORD, json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
