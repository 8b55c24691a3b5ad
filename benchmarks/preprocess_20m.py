"""Time preprocessing on 20 million generated interactions, from the raw file to what training reads.

Limits on two cores: 60 seconds and 4 GB. Writes the figures to benchmarks/records/preprocess_20m.json.

    python -m benchmarks.preprocess_20m
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

ACTIONS, USERS, ITEMS = 20_000_000, 140_000, 27_000
LIMIT_SECONDS, LIMIT_BYTES = 60.0, 4 * 10**9
RECORD = Path(__file__).parent / "records" / "preprocess_20m.json"
BLOCK = 1_000_000


def generate(path: Path, actions: int) -> None:
    """Write a RecBole .inter file: long-tailed users and items, shuffled rows, many equal timestamps."""
    rng = np.random.default_rng(0)
    user_weight = rng.lognormal(sigma=1.0, size=USERS)
    item_weight = 1.0 / np.arange(1, ITEMS + 1)
    name_I = rng.permutation(ITEMS)
    with open(path, "w", encoding="ascii") as file:
        file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        for start in range(0, actions, BLOCK):
            size = min(BLOCK, actions - start)
            user_N = rng.choice(USERS, size, p=user_weight / user_weight.sum())
            item_N = name_I[rng.choice(ITEMS, size, p=item_weight / item_weight.sum())]
            time_N = rng.integers(800_000_000, 1_500_000_000, size) // 60 * 60
            rows = zip(user_N.tolist(), item_N.tolist(), time_N.tolist(), strict=True)
            file.writelines(f"u{user}\ti{item}\t4.0\t{second}\n" for user, item, second in rows)


def measure(folder: Path, raw: Path) -> dict[str, float]:
    """Run the command line that the workflow runs, in a process of its own."""
    spec = {
        "display": "Generated",
        "format": "inter",
        "file": str(raw),
        "filter": {"min_user": 5, "min_item": 5},
    }
    command = [sys.executable, "-m", "workflow.scripts.preprocess", "--dataset", "generated"]
    command += ["--spec", json.dumps(spec), "--source", str(raw)]
    command += ["--sequences", str(folder / "sequences.npz"), "--stats", str(folder / "stats.json")]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": round(seconds, 1), "peak_memory_bytes": peak}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actions", type=int, default=ACTIONS)
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = folder / "generated.inter"
        print(f"generating {options.actions:,} interactions", file=sys.stderr)
        generate(raw, options.actions)
        figures = measure(folder, raw)
        stats = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
        record = {
            "benchmark": "preprocess_20m",
            **figures,
            "limit_seconds": LIMIT_SECONDS,
            "limit_bytes": LIMIT_BYTES,
            "raw_bytes": raw.stat().st_size,
            "generated_actions": options.actions,
            **{key: stats[key] for key in ("users", "items", "actions", "dropped", "fingerprint")},
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "pandas": version("pandas"),
        }
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{figures['seconds']} s, {figures['peak_memory_bytes'] / 1e9:.2f} GB peak; record in {options.record}")
    return int(figures["seconds"] > LIMIT_SECONDS or figures["peak_memory_bytes"] > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
