"""Time and memory on generated catalogues of up to a million items and a million users, each varied alone.

    python -m benchmarks.scale

Method: sasrec.tuned (softmax over all items in chunks, d = 64), in bf16 where the processor has it. Every row runs in a
process of its own, which generates and loads all data, takes a few training steps and ranks a few users over all items;
its peak resident memory counts everything. An epoch over a million users and a million items would take days here, so
no row is a whole epoch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import harness.cli
from benchmarks.measuring import data, timing
from harness.compute import Compute, ComputeSettings, choose, evaluation_mode
from harness.learner import Learner
from harness.methods import build_learner, load_method
from harness.ranking import Evaluator
from harness.split import Split, leave_one_out
from harness.streams import Streams

METHOD = "sasrec.tuned"
BATCH = 64  # sequences; an eighth of the configuration's, so that a step over a million items takes seconds
LIMIT_BYTES = 8 * 10**9
# users, items, mean length of a user's sequence
ITEMS = tuple((100_000, items, 10) for items in (10_000, 100_000, 1_000_000))
USERS = tuple((users, 100_000, 10) for users in (10_000, 100_000, 1_000_000))
LENGTHS = tuple((100_000, 100_000, length) for length in (10, 20, 40))
LARGEST = (1_000_000, 1_000_000, 10)
SIZES = tuple(dict.fromkeys((*ITEMS, *USERS, *LENGTHS, LARGEST)))
QUICK = ((1_000, 1_000, 10), (2_000, 10_000, 10))


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def prepare(users: int, items: int, length: int, compute: Compute) -> tuple[Split, Learner]:
    split = leave_one_out(data.generated(users, items, length), dataset="generated")
    settings = load_method(METHOD).resolved("generated", {"model": {"batch_size": BATCH}})
    return split, build_learner(settings, split.training_view(), Streams(1), compute)


def train(learner: Learner, steps: int) -> dict[str, float]:
    """Seconds of a step and of a target in it; the first step warms up."""
    times, targets = [], []
    batches = itertools.chain.from_iterable(iter(learner.batches, None))  # epoch after epoch
    for _ in range(steps + 1):
        batch = next(batches)
        targets.append(int((batch.target_BL > 0).sum()))
        times.append(seconds_of(lambda batch=batch: learner.training_step(batch))[0])
    steps_of_an_epoch = -(-learner.sampler.num_samples // learner.config.batch_size)
    return {
        "step_seconds": round(float(np.median(times[1:])), 3),
        "milliseconds_per_target": round(1e3 * sum(times[1:]) / sum(targets[1:]), 3),
        "steps_of_an_epoch": steps_of_an_epoch,
        "epoch_hours_extrapolated": round(steps_of_an_epoch * float(np.median(times[1:])) / 3600, 3),
    }


def evaluate(learner: Learner, split: Split, count: int) -> dict[str, float]:
    """Seconds to prepare the ranking of all users, and of ranking one of them."""
    users = np.random.default_rng(0).permutation(split.train.num_users)[:count]
    history, target_U = split.history("test"), split.target_U("test")
    preparing, evaluator = seconds_of(
        lambda: Evaluator(history, target_U, seed=1, part="test", max_len=learner.max_len, users=users)
    )
    with evaluation_mode(learner.module):
        ranking, _ = seconds_of(lambda: evaluator.ranks(learner.score))
    return {
        "prepare_ranking_seconds": round(preparing, 3),
        "milliseconds_per_ranked_user": round(1e3 * ranking / len(users), 3),
        "all_users_hours_extrapolated": round(ranking / len(users) * split.train.num_users / 3600, 3),
    }


def measure(size: tuple[int, int, int], options: argparse.Namespace) -> dict[str, Any]:
    compute = choose(ComputeSettings(device="cpu", threads=options.threads, precision=timing.precisions()[-1]))
    loading, (split, learner) = seconds_of(lambda: prepare(*size, compute))
    found = dict(zip(("users", "items", "mean_length"), size, strict=True)) | {"load_seconds": round(loading, 2)}
    found |= train(learner, options.steps) | evaluate(learner, split, options.ranked)
    return found | {"peak_memory_bytes": compute.peak_memory_bytes()}


def in_a_process(size: tuple[int, int, int], options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", "--size", *map(str, size)]
    command += ["--threads", str(options.threads), "--steps", str(options.steps), "--ranked", str(options.ranked)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main(argv: list[str] | None = None) -> int:
    parser = timing.arguments(__doc__.splitlines()[0], "scale", rounds=1)
    parser.add_argument("--steps", type=int, default=2, help="timed in each row (default %(default)s)")
    parser.add_argument("--ranked", type=int, default=256, help="users ranked in each row (default %(default)s)")
    parser.add_argument("--size", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.size:
        print(json.dumps(measure(tuple(options.size), options)))
        return 0
    rows = []
    for size in QUICK if options.quick else SIZES:
        rows.append(in_a_process(size, options))
        row = rows[-1]
        print(
            f"{row['users']:9,} users {row['items']:9,} items length {row['mean_length']:2}: step "
            f"{row['step_seconds']:6.2f} s, {row['milliseconds_per_target']:.2f} ms a target, "
            f"{row['milliseconds_per_ranked_user']:6.2f} ms a ranked user, {row['peak_memory_bytes'] / 1e9:.2f} GB",
            flush=True,
        )
    compute = Compute(torch.device("cpu"), timing.precisions()[-1])
    timing.write(
        options.out, {"method": METHOD, "batch_size": BATCH, "limit_bytes": LIMIT_BYTES, "rows": rows}, compute
    )
    return int(max(row["peak_memory_bytes"] for row in rows) > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
