"""Times that mean something on a machine shared with others: paths take turns, and processor time counts.

Wall time grows with whatever else runs; the processor seconds of one thread and ratios within one round do not. Several
threads are timed by the wall, on cores that nothing else uses.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.compute import Compute, describe
from harness.products import native_bf16
from harness.record import write_text_atomically

RECORDS = Path(__file__).parents[1] / "records"


class Cost(NamedTuple):
    """What one call took; faults are minor page faults, memory asked of the kernel page by page."""

    wall: float
    processor: float
    faults: int


def cost_of(call: Callable[[], Any]) -> Cost:
    gc.collect()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    wall, processor = time.perf_counter(), time.process_time()
    call()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Cost(wall, processor, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)


def extra_memory(call: Callable[[], Any]) -> int:
    """Bytes by which the process grew at most during a call. Ask a fresh process: freed memory may not be given back.

    Raises OSError where the kernel is not Linux.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def in_turn(paths: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Rounds in which each path runs once, one after the other."""
    costs: dict[str, list[Cost]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            costs[name].append(path())
    return costs


def spread(values: Sequence[float] | np.ndarray, digits: int = 4) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), digits),
        "least": round(float(np.min(values)), digits),
        "most": round(float(np.max(values)), digits),
    }


def clock(environment: Mapping[str, Any]) -> str:
    """Which seconds of a record count: of one thread the processor's, of several, which may wait, those of the wall."""
    return "wall" if environment["threads"] > 1 else "processor"


def summary(costs: Sequence[Cost]) -> dict[str, Any]:
    wall, processor, faults = np.array(costs).T
    return {
        "processor_seconds": spread(processor),
        "wall_seconds": spread(wall),
        "page_faults": int(np.median(faults)),
        "rounds": len(costs),
    }


def ratio(slow: Sequence[Cost], fast: Sequence[Cost], *, per_slow: float = 1, per_fast: float = 1) -> dict[str, Any]:
    """How many times faster, round by round. per_...: how much work one call does, if the two differ."""
    return {
        name: spread(
            [getattr(s, name) / per_slow / (getattr(f, name) / per_fast) for s, f in zip(slow, fast, strict=True)], 2
        )
        for name in ("processor", "wall")
    }


def arguments(description: str, name: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options all of these benchmarks share."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--sequences", type=Path, help="default: Beauty of the workflow, otherwise generated data")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch (default %(default)s: processor time is exact)"
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="default %(default)s")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it runs, measures nothing")
    parser.add_argument("--out", type=Path, default=RECORDS / f"{name}.json", help="record to write")
    return parser


def precisions() -> tuple[str, ...]:
    """The precisions of fast paths that can be timed here: emulated, a time would say nothing about the method."""
    return ("fp32", "bf16") if native_bf16() else ("fp32",)


def environment(compute: Compute) -> dict[str, Any]:
    load = [round(value, 1) for value in os.getloadavg()]
    return describe(compute) | {"cores": os.cpu_count(), "native_bf16": native_bf16(), "load_average": load}


def origin(compute: Compute) -> dict[str, Any]:
    """Command, time and machine of what is measured now."""
    words = [Path(word).name if "/" in word else word for word in sys.argv]
    command = shlex.join([Path(words[0]).stem, *words[1:]])
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    return {"command": f"python -m benchmarks.{command}", "finished": finished, "environment": environment(compute)}


def write(path: Path, content: Mapping[str, Any], compute: Compute) -> None:
    """Write a record that names its command and machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(origin(compute) | dict(content), indent=1) + "\n")


def record_methods(
    options: argparse.Namespace,
    data: str,
    compute: Compute,
    measure: Callable[[str], dict[str, Any]],
    report: Callable[[str, Mapping[str, Any]], None],
) -> None:
    """Measure the chosen methods one by one; the record is written after each, beside what it held of others."""
    methods = so_far(options.out, "methods")
    for method in options.methods:
        methods[method] = measure(method) | {"origin": origin(compute)}
        report(method, methods[method])
        write(options.out, {"data": data, "methods": methods}, compute)


def so_far(path: Path, part: str) -> dict[str, Any]:
    """What earlier runs measured of other methods or ways, each with its origin: one may be measured again alone."""
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    shared = {key: record[key] for key in ("command", "finished", "environment")}
    return {name: {"origin": shared} | found for name, found in record[part].items()}
