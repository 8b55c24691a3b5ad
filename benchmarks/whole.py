"""Whole training epochs and whole evaluations of the fast paths, by the wall: nothing is extrapolated.

    python -m benchmarks.whole --sequences results/paper/data/beauty/sequences.npz

For absolute seconds on all cores, which only mean something while nothing else runs; ratios to the reference's way are
in the records of `training`, `evaluation` and `sasrec`. In bf16, or in fp32 where the processor has no bf16 products.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import harness.cli
from benchmarks.evaluation import fast
from benchmarks.measuring import data, timing
from benchmarks.training import learner_of
from harness.compute import ComputeSettings, choose
from harness.split import Split, leave_one_out

EVALUATED = ("diffurec.keys", "aligndiff")
METHODS = (*EVALUATED, "sasrec.tuned")
WARM_UP = 20  # steps before the first epoch


def epoch(learner: Any, steps: int | None = None) -> None:
    for number, batch in enumerate(learner.batches(), start=1):
        learner.training_step(batch)
        if number == steps:
            return


def measure(method: str, split: Split, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    learner = learner_of(method, split.training_view(), precision)
    epoch(learner, 1 if options.quick else WARM_UP)
    found = {"precision": precision, "epoch": repeated(lambda: epoch(learner), options.rounds)}
    if method in EVALUATED:
        users = split.history("test").lengths.argsort(kind="stable")
        found["evaluation"] = repeated(fast(learner, split, users), options.rounds)
    return found


def repeated(call: Callable[[], Any], rounds: int) -> dict[str, Any]:
    return timing.summary([timing.cost_of(call) for _ in range(rounds)])


def report(method: str, found: dict[str, Any]) -> None:
    for name in ("epoch", "evaluation"):
        seconds = found.get(name, {}).get("wall_seconds")
        if seconds:
            spread = f"[{seconds['least']:.1f}..{seconds['most']:.1f}]"
            print(f"{method}, {found['precision']}, {name}: {seconds['median']:.1f} s {spread}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = timing.arguments(__doc__.splitlines()[0], "whole", rounds=2)
    parser.set_defaults(threads=os.cpu_count())
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    options = parser.parse_args(argv)
    sequences, name = data.load(options.sequences)
    split = leave_one_out(sequences, dataset="beauty")
    if options.quick:
        options.rounds = 1
    precision = timing.precisions()[-1]
    settings = ComputeSettings(device="cpu", precision=precision, threads=options.threads, onednn=precision == "fp32")
    compute = choose(settings)
    timing.record_methods(options, name, compute, lambda method: measure(method, split, precision, options), report)
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
