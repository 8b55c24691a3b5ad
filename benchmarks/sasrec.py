"""SASRec with softmax: whole sequences against prefix samples padded to 50, in targets per second, in turn.

    python -m benchmarks.sasrec --sequences results/paper/data/beauty/sequences.npz

Prefix way: 2,048 samples a batch as RecBole has it, all positions through all blocks, one softmax per prefix, fp32.
Whole sequences: one softmax per real position. Both train on the same targets. They are not the same mathematics: the
newest item has the newest position, so an item of a whole sequence stands elsewhere than at the end of its prefix; and
the targets of a user share a batch. The network itself is compared on prefixes before anything is timed (fp32, dropout
off, relative difference below 1e-5).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import harness.cli
from baselines.sasrec import Block, Network
from benchmarks.measuring import data, timing
from benchmarks.measuring.equality import TOLERANCE, relative
from benchmarks.measuring.reference_way import cross_entropy, drop
from benchmarks.measuring.timing import Cost
from benchmarks.measuring.worker import Worker, serve
from benchmarks.training import AS_IT_IS, ONEDNN, WARM_UP, learner_of, steps_of, timed, warm_up
from harness.compute import ComputeSettings, choose, evaluation_mode
from harness.layers import causal_key_mask, merge_heads, split_heads
from harness.learner import Learner
from harness.split import TrainingView, leave_one_out
from harness.streams import Streams
from harness.windows import PrefixBatch, PrefixSampler, ResidentSequences, SequenceBatch

PREFIXES = 2048  # samples in a batch, RecBole's train_batch_size
SHIPPED = "prefixes_fp32_default_allocator"


def block(part: Block, x_BLD: Tensor, mask: Tensor) -> Tensor:
    """A block at every position, its attention written out."""
    query = part.norm_attention(x_BLD)
    context = x_BLD if part.normalised else query
    inputs = ((part.query, query), (part.key, context), (part.value, context))
    q, k, v = (split_heads(layer(value), part.num_heads) for layer, value in inputs)
    logits_BHLL = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -1e9)
    read = merge_heads(drop(logits_BHLL.softmax(-1), part.dropout) @ v)
    x_BLD = read + (query if part.normalised else x_BLD)
    normed = part.norm_feed_forward(x_BLD)
    hidden = drop(part.outer(drop(F.relu(part.inner(normed)), part.dropout)), part.dropout)
    return hidden + (normed if part.normalised else x_BLD)


def newest(net: Network, history_BL: Tensor) -> Tensor:
    """Hidden state at the end of each prefix; the other positions are computed and thrown away.  [B, D]"""
    real_BL1, mask = (history_BL > 0)[..., None], causal_key_mask(history_BL)
    x_BLD = drop(net.items(history_BL) * net.items.embedding_dim**0.5 + net.positions, net.dropout) * real_BL1
    for part in net.blocks:
        x_BLD = block(part, x_BLD, mask) * real_BL1
    return net.norm(x_BLD)[:, -1]


class PrefixWay:
    """The learner's weights, trained on prefix samples."""

    def __init__(self, learner: Learner, view: TrainingView, batch_size: int = PREFIXES) -> None:
        self.net: Network = learner.module
        data = ResidentSequences.of(view.train)
        self.sampler = PrefixSampler(data, max_len=learner.max_len, batch_size=batch_size, trim=False)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=learner.config.learning_rate, fused=False)

    def training_step(self, batch: PrefixBatch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        query_BD = newest(self.net, batch.history_BL)
        cross_entropy(query_BD, self.net.items.weight, batch.target_B, padding=False).backward()
        self.optimizer.step()


class Path:
    """One training step per call, and how many targets each of them trained."""

    def __init__(self, step: Callable[[Any], Any], sampler: Any, products: str) -> None:
        self._step, self._sampler, self._batches = step, sampler, self._endless()
        self._timed = timed(self._one, products)
        self.targets: list[int] = []

    def _endless(self) -> Iterator[Any]:
        generator = Streams(1).torch("shuffle")
        while True:
            yield from self._sampler.epoch(generator)

    def _one(self) -> None:
        batch = next(self._batches)
        targets = batch.target_BL > 0 if isinstance(batch, SequenceBatch) else batch.target_B > 0
        self.targets.append(int(targets.sum()))
        self._step(batch)

    def __call__(self) -> Cost:
        return self._timed()


def checked(way: PrefixWay) -> float:
    """Raise RuntimeError unless the written-out network and the fast one agree on prefixes."""
    history_BL = way.sampler.batch(torch.arange(0, way.sampler.num_samples, 97)[:512]).history_BL
    with evaluation_mode(way.net), torch.no_grad():
        found = relative(way.net(history_BL, last_only=True)[:, -1], newest(way.net, history_BL))
    if found > TOLERANCE:
        raise RuntimeError(f"hidden states differ by {found}, more than {TOLERANCE}")
    return found


def prefix_path(view: TrainingView) -> tuple[PrefixWay, Path]:
    way = PrefixWay(learner_of("sasrec.tuned", view, "fp32"), view)
    return way, Path(way.training_step, way.sampler, AS_IT_IS)


def measure(view: TrainingView, options: argparse.Namespace) -> dict[str, Any]:
    way, here = prefix_path(view)
    found: dict[str, Any] = {"relative_difference": checked(way), "targets in an epoch": way.sampler.num_samples}
    paths = {"prefixes_fp32": here}
    for precision in timing.precisions():
        learner = learner_of("sasrec.tuned", view, precision)
        products = ONEDNN if precision == "fp32" else AS_IT_IS
        paths[f"sequences_{precision}"] = Path(learner.training_step, learner.sampler, products)
    warm_up(paths, 1 if options.quick else 2 * WARM_UP)
    for path in paths.values():
        path.targets.clear()
    with Worker(worker_arguments(options)) as as_shipped:
        costs = timing.in_turn(paths | {SHIPPED: as_shipped}, options.rounds)
    targets = {name: path.targets for name, path in paths.items()}
    targets[SHIPPED] = [min(PREFIXES, way.sampler.num_samples)] * options.rounds
    found["paths"] = {name: rates(targets[name], costs[name], way.sampler.num_samples) for name in costs}
    found["speedup"] = {
        f"{fast} over {slow}": speedup(targets[fast], costs[fast], targets[slow], costs[slow])
        for slow in (SHIPPED, "prefixes_fp32")
        for fast in paths
        if fast.startswith("sequences")
    }
    return found


def speedup(targets: list[int], costs: list[Cost], others: list[int], slow: list[Cost]) -> dict[str, Any]:
    """Ratio of targets per second, round by round."""
    rounds = list(zip(targets, costs, others, slow, strict=True))
    return {
        key: timing.spread([(n / getattr(cost, key)) / (m / getattr(other, key)) for n, cost, m, other in rounds], 2)
        for key in ("processor", "wall")
    }


def worker_arguments(options: argparse.Namespace) -> list[str]:
    chosen = ["benchmarks.sasrec", "--serve", "--threads", str(options.threads)]
    return chosen + (["--sequences", str(options.sequences)] if options.sequences else [])


def rates(targets: list[int], costs: list[Cost], epoch: int) -> dict[str, Any]:
    """Targets per second and the seconds of an epoch, extrapolated from the steps taken."""
    found = timing.summary(costs)
    for key in ("processor", "wall"):
        rate = [count / getattr(cost, key) for count, cost in zip(targets, costs, strict=True)]
        found[f"targets_per_{key}_second"] = timing.spread(rate, 1)
        found[f"epoch_{key}_seconds"] = round(epoch * sum(getattr(cost, key) for cost in costs) / sum(targets), 2)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = timing.arguments(__doc__.splitlines()[0], "sasrec", rounds=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    sequences, name = data.load(options.sequences)
    view = leave_one_out(sequences, dataset="beauty").training_view()
    if options.serve:
        torch.set_num_threads(options.threads)
        way = prefix_path(view)[0]
        serve(steps_of(way.training_step, way.sampler))
        return 0
    if options.quick:
        options.rounds = 1
    compute = choose(ComputeSettings(device="cpu", threads=options.threads))
    found = measure(view, options)
    for path, rate in found["paths"].items():
        seconds = rate["epoch_processor_seconds"]
        print(f"{path:32} {rate['targets_per_processor_second']['median']:8.0f} targets/s, epoch {seconds:6.1f} s")
    timing.write(options.out, {"data": name, **found}, compute)
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
