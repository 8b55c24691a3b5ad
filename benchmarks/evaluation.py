"""The whole reverse chain for users to rank: the fast path against the reference's way, in turn.

    python -m benchmarks.evaluation --sequences results/paper/data/beauty/sequences.npz

Fast: `harness.ranking.Evaluator` on a sample of blocks of users, chain and ranks complete. Reference's way: 512 users,
padded to 50, all positions, one guidance branch after the other, fp32; of its 32 equal steps a few are timed and
multiplied. Seconds for all users are extrapolated from seconds per user.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import harness.cli
from benchmarks.measuring import data, timing
from benchmarks.measuring.equality import TOLERANCE, relative
from benchmarks.measuring.reference_way import ReferenceWay, reference_way
from benchmarks.measuring.worker import Worker, serve
from benchmarks.training import AS_IT_IS, ONEDNN, learner_of, timed
from harness.compute import ComputeSettings, choose, evaluation_mode
from harness.learner import Learner
from harness.ranking import BLOCK, Evaluator
from harness.split import Split, leave_one_out
from harness.streams import UserNoise
from harness.windows import ResidentSequences, pad_left

METHODS = ("diffurec.keys", "aligndiff")
BATCH = 512  # users at a time in the reference's way, as the reference has it
CHECKED = 32  # users whose chain is compared in both ways


def positions(length_U: np.ndarray, max_len: int) -> np.ndarray:
    """Width of each full block of users, shortest histories first: the positions computed for one of its users."""
    ordered = np.sort(np.minimum(length_U, max_len))
    if len(ordered) < BLOCK:
        return ordered[-1:]
    return ordered[: len(ordered) // BLOCK * BLOCK].reshape(-1, BLOCK).max(1)


def sample(split: Split, count: int, max_len: int) -> np.ndarray:
    """Whole blocks of users of like length, evenly spaced, with about as many positions a user as all users have.

    Users drawn one by one would fill blocks with unlike lengths: 512 of Beauty's cost half as much again each.
    """
    length_U = split.history("test").lengths
    order = np.argsort(length_U, kind="stable")
    share, blocks = positions(length_U, max_len), count // BLOCK
    if not 0 < blocks < len(share):
        return order
    stride = len(share) // blocks
    starts = [np.arange(start, len(share), stride)[-blocks:] for start in range(stride)]
    chosen = min(starts, key=lambda start: abs(share[start].mean() - share.mean()))
    return order[: len(share) * BLOCK].reshape(-1, BLOCK)[chosen].flatten()


def fast(learner: Learner, split: Split, users: np.ndarray) -> Callable[[], Any]:
    history, target_U = split.history("test"), split.target_U("test")
    evaluator = Evaluator(history, target_U, seed=1, part="test", max_len=learner.max_len, users=users)

    def run() -> None:
        with evaluation_mode(learner.module):
            evaluator.ranks(learner.score)

    return run


def slow(way: ReferenceWay, split: Split, users: np.ndarray, steps: int) -> Callable[[], Any]:
    """A batch of users in the reference's way: `steps` of the chain, all scores, the best 20 items."""
    history_BL = padded(way, split, users)
    noise = UserNoise.single(len(users), way.config.max_len)

    def run() -> None:
        with evaluation_mode(way.net), torch.no_grad():
            x_BD = way.generate(history_BL, noise, stop=way.config.num_steps - steps)
            (x_BD @ way.learner.item_table().T).topk(20)

    return run


def padded(way: ReferenceWay, split: Split, users: np.ndarray) -> torch.Tensor:
    resident = ResidentSequences.of(split.history("test"))
    return pad_left(resident.histories(torch.from_numpy(users), way.config.max_len), way.config.max_len)


def checked(way: ReferenceWay, split: Split) -> float:
    """Raise RuntimeError unless both ways end the chain at the same place."""
    history_BL = padded(way, split, np.random.default_rng(0).permutation(split.train.num_users)[:CHECKED])
    count, width = len(history_BL), int((history_BL > 0).sum(1).max())
    with evaluation_mode(way.net), torch.no_grad():
        expected_BD = way.generate(history_BL, UserNoise.single(count, width), full=False)
        torch.set_float32_matmul_precision(ONEDNN)
        found_BD = way.learner.represent(history_BL[:, -width:], torch.arange(count), UserNoise.single(count, width))
        torch.set_float32_matmul_precision(AS_IT_IS)
    if relative(found_BD, expected_BD) > TOLERANCE:
        raise RuntimeError(f"ends of the chain differ by {relative(found_BD, expected_BD)}, more than {TOLERANCE}")
    return relative(found_BD, expected_BD)


def measure(method: str, split: Split, options: argparse.Namespace) -> dict[str, Any]:
    view = split.training_view()
    way = reference_way(learner_of(method, view, "fp32"))
    found: dict[str, Any] = {"relative_difference": checked(way, split)}
    users = sample(split, options.users, way.config.max_len)
    length_U = split.history("test").lengths
    found["positions_per_user"] = {
        "sample": float(positions(length_U[users], way.config.max_len).mean().round(2)),
        "all": float(positions(length_U, way.config.max_len).mean().round(2)),
    }
    paths = {"reference_way": timed(slow(way, split, users[:BATCH], options.steps))}
    fast_paths = [f"fast_{precision}" for precision in timing.precisions()]
    for precision, path in zip(timing.precisions(), fast_paths, strict=True):
        products = ONEDNN if precision == "fp32" else AS_IT_IS
        paths[path] = timed(fast(learner_of(method, view, precision), split, users), products)
    with Worker(worker_arguments(method, options)) as as_shipped:
        paths["reference_way_default_allocator"] = as_shipped
        for path in [] if options.quick else fast_paths:
            paths[path]()  # warms up
        costs = timing.in_turn(paths, options.rounds)
    # Whole chains that one call is worth.
    share = options.steps / way.config.num_steps
    done = {name: len(users) if name.startswith("fast") else len(users[:BATCH]) * share for name in paths}
    found["call"] = {name: timing.summary(of_path) | {"chains": done[name]} for name, of_path in costs.items()}
    found["speedup"] = {
        f"{path} over {name}": timing.ratio(costs[name], costs[path], per_slow=done[name], per_fast=done[path])
        for name in ("reference_way", "reference_way_default_allocator")
        for path in fast_paths
    }
    return found | {"all_users": all_users(split.train.num_users, found["call"])}


def all_users(count: int, calls: dict[str, Any]) -> dict[str, Any]:
    seconds = {
        name: {
            key: round(count * call[key]["median"] / call["chains"], 1) for key in ("processor_seconds", "wall_seconds")
        }
        for name, call in calls.items()
    }
    return {"users": count, "extrapolated": seconds}


def worker_arguments(method: str, options: argparse.Namespace) -> list[str]:
    given = {"serve": method, "threads": options.threads, "users": options.users, "steps": options.steps}
    given |= {"sequences": options.sequences} if options.sequences else {}
    return ["benchmarks.evaluation", *(text for key, value in given.items() for text in (f"--{key}", str(value)))]


def report(method: str, found: dict[str, Any]) -> None:
    for name, seconds in found["all_users"]["extrapolated"].items():
        print(f"{method} {name:32} {seconds['processor_seconds']:8.1f} s for {found['all_users']['users']} users")
    for name, times in found["speedup"].items():
        least, most = times["processor"]["least"], times["processor"]["most"]
        print(f"  {name:48} x {times['processor']['median']:.1f} [{least:.1f}..{most:.1f}]", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = timing.arguments(__doc__.splitlines()[0], "evaluation", rounds=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--users", type=int, default=1024, help="of the fast path (default %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="timed in the reference's way (default %(default)s)")
    parser.add_argument("--serve", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    sequences, name = data.load(options.sequences)
    split = leave_one_out(sequences, dataset="beauty")
    if options.quick:
        options.rounds, options.users, options.steps = 1, 64, 1
    if options.serve:
        torch.set_num_threads(options.threads)
        way = reference_way(learner_of(options.serve, split.training_view(), "fp32"))
        serve(slow(way, split, sample(split, options.users, way.config.max_len)[:BATCH], options.steps))
        return 0
    compute = choose(ComputeSettings(device="cpu", threads=options.threads))
    timing.record_methods(options, name, compute, lambda method: measure(method, split, options), report)
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
