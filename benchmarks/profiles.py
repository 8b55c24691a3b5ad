"""Where training steps and evaluations spend their time: a step in the reference's way, and both on the fast path.

    python -m benchmarks.profiles --sequences results/paper/data/beauty/sequences.npz

Shares are self times of torch's operators, summed by kind. The profiler itself costs time, most where operators are
small and many, so shares count here and seconds do not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import harness.cli
from benchmarks.evaluation import fast, sample
from benchmarks.measuring import data, timing
from benchmarks.measuring.reference_way import reference_way
from benchmarks.training import AS_IT_IS, METHODS, ONEDNN, learner_of, padded_sampler, steps_of
from harness.compute import ComputeSettings, choose
from harness.split import Split, leave_one_out

# Kind by the name of the operator, first match wins.
KINDS = {
    "fused attention": ("scaled_dot_product",),
    "matrix products": ("mm", "linear", "matmul", "convolution"),  # in an evaluation in bf16 with GELU
    "softmax and cross-entropy": ("softmax", "nll_loss", "_ChunkedCrossEntropy"),
    "random numbers": ("bernoulli", "random", "normal", "randn", "randint", "randperm", "dropout"),
    "LayerNorm": ("layer_norm",),
    "GELU": ("gelu", "tanh", "pow"),
    "optimiser": ("adam", "addcmul", "addcdiv", "lerp"),
    "gathering and embedding": ("index", "gather", "scatter", "embedding", "select_backward", "slice_backward"),
    "copies and casts": ("copy", "cat", "clone", "contiguous", "fill", "zero", "empty", "stack"),
    "sums and means": ("sum", "mean", "amax", "norm", "max"),
    "multiply, add, compare": ("mul", "add", "sub", "div", "rsub", "neg", "sqrt", "lt", "le", "gt", "bitwise", "where"),
}


def kind_of(operator: str) -> str:
    name = operator.removeprefix("aten::")
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def shares(step: Callable[[], Any], products: str, steps: int) -> dict[str, Any]:
    torch.set_float32_matmul_precision(products)
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(steps):
            step()
    torch.set_float32_matmul_precision(AS_IT_IS)
    operators = sorted(record.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in operators)
    kinds: dict[str, float] = {}
    for event in operators:
        kind = kind_of(event.key)
        kinds[kind] = kinds.get(kind, 0.0) + event.self_cpu_time_total
    percent = {kind: round(100 * time / total, 1) for kind, time in sorted(kinds.items(), key=lambda pair: -pair[1])}
    largest = {event.key: round(100 * event.self_cpu_time_total / total, 1) for event in operators[:20]}
    return {
        "percent_by_kind": percent,
        "percent_by_operator": largest,
        "calls": sum(e.count for e in operators) // steps,
    }


def measure(method: str, split: Split, options: argparse.Namespace) -> dict[str, Any]:
    view, rounds = split.training_view(), 1 if options.quick else options.rounds
    way = reference_way(learner_of(method, view, "fp32"))
    step = steps_of(way.training_step, padded_sampler(way, view))
    step()
    found = {"reference_way": shares(step, AS_IT_IS, rounds)}
    for precision in timing.precisions():
        products = ONEDNN if precision == "fp32" else AS_IT_IS
        learner = learner_of(method, view, precision)
        step = steps_of(learner.training_step, learner.sampler)
        for _ in range(1 if options.quick else options.warm_up):
            step()
        found[f"fast_{precision}"] = shares(step, products, rounds if options.quick else 5 * rounds)
        evaluate = fast(learner, split, sample(split, options.users, learner.max_len))
        evaluate()
        found[f"evaluation_{precision}"] = shares(evaluate, products, rounds)
    return {"rounds": rounds, "paths": found}


def report(method: str, found: dict[str, Any]) -> None:
    for path, share in found["paths"].items():
        print(method, path, share["percent_by_kind"], flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = timing.arguments(__doc__.splitlines()[0], "profiles", rounds=1)
    parser.add_argument("--methods", nargs="*", default=["diffurec.keys", "aligndiff"], choices=METHODS)
    parser.add_argument("--warm-up", type=int, default=6, help="steps of the fast path (default %(default)s)")
    parser.add_argument("--users", type=int, default=512, help="whose evaluation is profiled (default %(default)s)")
    options = parser.parse_args(argv)
    sequences, name = data.load(options.sequences)
    split = leave_one_out(sequences, dataset="beauty")
    compute = choose(ComputeSettings(device="cpu", threads=options.threads))
    if options.quick:
        options.users = 64
    timing.record_methods(options, name, compute, lambda method: measure(method, split, options), report)
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
