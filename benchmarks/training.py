"""Training steps of DiffuRec and AlignDiff: the fast path against the reference's way, step by step in turn.

    python -m benchmarks.training --sequences results/paper/data/beauty/sequences.npz

Before anything is timed, loss and gradients of both ways are compared on one full batch (fp32, dropout off, same noise)
and must agree to 1e-5. The reference's way is timed twice: in this process, where it profits from the allocator setting
that belongs to the fast path, and in a process of its own without it, which is how the reference runs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

import harness.cli
from benchmarks.measuring import data, timing
from benchmarks.measuring.equality import TOLERANCE, differences
from benchmarks.measuring.reference_way import ReferenceWay, reference_way
from benchmarks.measuring.timing import Cost, cost_of
from benchmarks.measuring.worker import Worker, serve
from harness.compute import Compute, ComputeSettings, choose
from harness.learner import Learner
from harness.methods import build_learner, load_method
from harness.split import TrainingView, leave_one_out
from harness.streams import Streams
from harness.windows import PrefixBatch, PrefixSampler, ResidentSequences

METHODS = ("diffurec", "diffurec.keys", "aligndiff")
TURN = 5  # steps of a fast path in one turn, averaged: a trimmed step takes as long as its histories are
WARM_UP = 4  # steps of a fast path; the heap has grown before, in the reference's way, as the page faults show
# Products of the fast path in fp32 go through oneDNN, an option of ours, but not on a processor with AMX, where it
# would round them to bf16; the reference leaves torch as it is.
AS_IT_IS = "highest"
ONEDNN = AS_IT_IS if torch.cpu._is_amx_tile_supported() else "medium"


def learner_of(method: str, view: TrainingView, precision: str) -> Learner:
    settings = load_method(method).resolved("beauty")
    return build_learner(settings, view, Streams(1), Compute(torch.device("cpu"), precision))


def padded_sampler(way: ReferenceWay, view: TrainingView) -> PrefixSampler:
    """The learner's samples, padded to max_len whether padding counts or not."""
    config = way.config
    resident = ResidentSequences.of(view.train)
    return PrefixSampler(resident, max_len=config.max_len, batch_size=config.batch_size, trim=False)


def steps_of(step: Callable[[PrefixBatch], Any], sampler: PrefixSampler) -> Callable[[], Any]:
    """One training step per call, batch included; all paths get the same samples in the same order."""
    generator = Streams(1).torch("shuffle")
    batches: Iterator[PrefixBatch] = itertools.chain.from_iterable(iter(lambda: sampler.epoch(generator), None))
    return lambda: step(next(batches))


def timed(call: Callable[[], Any], products: str = AS_IT_IS) -> Callable[[], Cost]:
    def run() -> Cost:
        torch.set_float32_matmul_precision(products)
        try:
            return cost_of(call)
        finally:
            torch.set_float32_matmul_precision(AS_IT_IS)

    return run


def averaged(step: Callable[[], Cost], count: int) -> Callable[[], Cost]:
    """Several steps as one turn; what one of them took on average."""

    def run() -> Cost:
        wall, processor, faults = zip(*(step() for _ in range(count)), strict=True)
        return Cost(sum(wall) / count, sum(processor) / count, sum(faults) // count)

    return run


def checked(way: ReferenceWay, view: TrainingView) -> dict[str, float]:
    """Raise RuntimeError unless both ways give the same loss and gradients."""
    chosen_B = torch.randperm(padded_sampler(way, view).num_samples)[: way.config.batch_size]
    torch.set_float32_matmul_precision(ONEDNN)
    found = differences(way, way.learner.sampler.batch(chosen_B), padded_sampler(way, view).batch(chosen_B))
    torch.set_float32_matmul_precision(AS_IT_IS)
    if max(found.values()) > TOLERANCE:
        raise RuntimeError(f"fast path and reference's way differ by {found}, more than {TOLERANCE}")
    return found


def measure(method: str, view: TrainingView, options: argparse.Namespace) -> dict[str, Any]:
    """Costs of a step on every path and their ratios."""
    way = reference_way(learner_of(method, view, "fp32"))
    found: dict[str, Any] = {"relative_difference": checked(way, view)}
    paths = {"reference_way": timed(steps_of(way.training_step, padded_sampler(way, view)))}
    for precision, products in (("fp32", ONEDNN), ("bf16", AS_IT_IS)):
        learner = learner_of(method, view, precision)
        step = timed(steps_of(learner.training_step, learner.sampler), products)
        paths[f"fast_{precision}"] = averaged(step, 1 if options.quick else TURN)
    warm_up(paths, 1 if options.quick else WARM_UP)
    with Worker(worker_arguments(method, options)) as as_shipped:
        paths["reference_way_default_allocator"] = as_shipped
        costs = timing.in_turn(paths, options.rounds)
    found["step"] = {name: timing.summary(of_path) for name, of_path in costs.items()}
    found["speedup"] = {
        f"{fast} over {slow}": timing.ratio(costs[slow], costs[fast])
        for slow in ("reference_way", "reference_way_default_allocator")
        for fast in ("fast_fp32", "fast_bf16")
    }
    return found | {"epoch": epoch(way.learner.sampler, found["step"])}


def warm_up(paths: dict[str, Callable[[], Any]], steps: int) -> None:
    """Once the reference's way, whose tensors have one size; the fast paths until their heap has grown."""
    for name, path in paths.items():
        for _ in range(steps if name.startswith(("fast", "sequences")) else 1):
            path()


def epoch(sampler: PrefixSampler, steps: dict[str, Any]) -> dict[str, Any]:
    """Seconds for all samples, extrapolated from the median step."""
    seconds = {
        name: {
            key: round(sampler.num_batches * cost[key]["median"], 1) for key in ("processor_seconds", "wall_seconds")
        }
        for name, cost in steps.items()
    }
    return {"samples": sampler.num_samples, "steps": sampler.num_batches, "extrapolated": seconds}


def worker_arguments(method: str, options: argparse.Namespace) -> list[str]:
    chosen = ["benchmarks.training", "--serve", method, "--threads", str(options.threads)]
    return chosen + (["--sequences", str(options.sequences)] if options.sequences else [])


def serve_reference_way(method: str, view: TrainingView, threads: int) -> None:
    """Steps in the reference's way on request, with the allocator as it is."""
    torch.set_num_threads(threads)
    way = reference_way(learner_of(method, view, "fp32"))
    serve(steps_of(way.training_step, padded_sampler(way, view)))


def report(method: str, found: dict[str, Any]) -> None:
    print(f"{method}: {found['epoch']['samples']} samples an epoch")
    for name, cost in found["step"].items():
        seconds = cost["processor_seconds"]
        print(f"  {name:32} {seconds['median']:.3f} s a step [{seconds['least']:.3f}..{seconds['most']:.3f}]")
    for name, times in found["speedup"].items():
        least, most = times["processor"]["least"], times["processor"]["most"]
        print(f"  {name:48} x {times['processor']['median']:.1f} [{least:.1f}..{most:.1f}]", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = timing.arguments(__doc__.splitlines()[0], "training", rounds=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--serve", choices=METHODS, help=argparse.SUPPRESS)  # what the second process is started with
    options = parser.parse_args(argv)
    sequences, name = data.load(options.sequences)
    view = leave_one_out(sequences, dataset="beauty").training_view()
    if options.serve:
        serve_reference_way(options.serve, view, options.threads)
        return 0
    if options.quick:
        options.rounds = 1
    compute = choose(ComputeSettings(device="cpu", threads=options.threads))
    timing.record_methods(options, name, compute, lambda method: measure(method, view, options), report)
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
