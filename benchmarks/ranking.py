"""Ranking 22,363 users over 12,101 items at d = 128: counting scores above the target against sorting them.

    python -m benchmarks.ranking --sequences results/paper/data/beauty/sequences.npz

Counting gives the rank of each target with seen items kept and hidden; the other ways give no more than places below 20
or 100, or a whole order. Memory is what a fresh process needs on top of data, queries and item table: the median of
three processes, as it varies with what of the libraries had been read before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

import harness.cli
from benchmarks.measuring import data, timing
from benchmarks.training import AS_IT_IS, ONEDNN, timed
from harness.compute import ComputeSettings, choose
from harness.ranking import Evaluator
from harness.split import Split, leave_one_out

DIM, CHUNK = 128, 512
PROCESSES = 3


class Ways:
    """Every way to rank the same users with the same vectors."""

    def __init__(self, split: Split) -> None:
        generator = torch.Generator().manual_seed(0)
        self.query_UD = torch.randn(split.train.num_users, DIM, generator=generator)
        self.table_ID = torch.randn(split.num_items + 1, DIM, generator=generator)
        self.target_U = torch.from_numpy(split.target_U("test").astype("int64"))
        self.evaluator = Evaluator(split.history("test"), split.target_U("test"), seed=1, part="test", max_len=50)

    def named(self) -> dict[str, tuple[Callable[[], Any], str]]:
        """Way and the setting of its products."""
        return {
            "count": (self.count, AS_IT_IS),
            "count, oneDNN": (self.count, ONEDNN),
            "topk(20) twice, topk(100), clones": (self.topk, AS_IT_IS),
            "argsort": (self.argsort, AS_IT_IS),
            "argsort of one matrix": (self.argsort_whole, AS_IT_IS),
        }

    def count(self) -> None:
        self.evaluator.ranks(lambda history_BL, user_B, noise: self.query_UD[user_B] @ self.table_ID.T)

    def scores(self) -> Iterator[tuple[Tensor, Tensor]]:
        for query_BD, target_B in zip(self.query_UD.split(CHUNK), self.target_U.split(CHUNK), strict=True):
            yield query_BD @ self.table_ID.T, target_B

    def topk(self) -> None:
        """Hit rate and NDCG each from a copy of the scores, and a list of 100, as the reference does."""
        for score_BI, target_B in self.scores():
            for _ in range(2):
                (score_BI.clone().topk(20).indices == target_B[:, None]).any(1)
            score_BI.topk(min(100, score_BI.shape[1]))

    def argsort(self) -> None:
        for score_BI, target_B in self.scores():
            (score_BI.argsort(dim=1, descending=True) == target_B[:, None]).int().argmax(1)

    def argsort_whole(self) -> None:
        order_UI = (self.query_UD @ self.table_ID.T).argsort(dim=1, descending=True)
        (order_UI == self.target_U[:, None]).int().argmax(1)


def memory_of(way: str, options: argparse.Namespace) -> list[int]:
    """Extra peak memory in bytes, least first, each from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ranking", "--memory-of", way, "--threads", str(options.threads)]
    command += ["--sequences", str(options.sequences)] if options.sequences else []
    processes = 1 if options.quick else PROCESSES
    found = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(processes))
    return sorted(map(json.loads, found))


def main(argv: list[str] | None = None) -> int:
    parser = timing.arguments(__doc__.splitlines()[0], "ranking", rounds=3)
    parser.add_argument("--ways", nargs="*", help="default: all; the record keeps what it holds of others")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    sequences, name = data.load(options.sequences)
    compute = choose(ComputeSettings(device="cpu", threads=options.threads))
    ways = Ways(leave_one_out(sequences, dataset="beauty")).named()
    if options.memory_of:
        call, products = ways[options.memory_of]
        torch.set_float32_matmul_precision(products)
        print(timing.extra_memory(call))
        return 0
    if options.quick:
        ways, options.rounds = {key: way for key, way in ways.items() if not key.startswith("argsort")}, 1
    chosen = {key: way for key, way in ways.items() if not options.ways or key in options.ways}
    costs = timing.in_turn({key: timed(*way) for key, way in chosen.items()}, options.rounds)
    found = timing.so_far(options.out, "ways")
    for key, of_way in costs.items():
        memory = memory_of(key, options)
        found[key] = timing.summary(of_way) | {"extra_memory_bytes": int(median(memory)), "extra_memory_each": memory}
        found[key]["origin"] = timing.origin(compute)
        seconds = found[key]["processor_seconds"]["median"]
        print(f"{key:36} {seconds:6.2f} s  {found[key]['extra_memory_bytes'] / 2**30:.3f} GiB extra", flush=True)
    timing.write(options.out, {"data": name, "dim": DIM, "ways": found}, compute)
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
