"""Time and peak memory of one MMD test at full size: python -m benchmarks.mmd [--users N]

Writes benchmarks/records/mmd.json. Fails if the process ever held more than 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np

from analysis.mmd import median_bandwidth, mmd_test

RECORD = Path(__file__).parent / "records" / "mmd.json"
LIMIT_BYTES = 2_000_000_000


def measure(num_users: int, dim: int, permutations: int) -> dict:
    """Run the test on two normal samples a hair apart and return what it cost and found."""
    rng = np.random.default_rng(0)
    generated = rng.normal(0.01, 1, size=(num_users, dim)).astype(np.float32)
    truth = rng.normal(size=(num_users, dim)).astype(np.float32)
    start = time.perf_counter()
    bandwidth = median_bandwidth(generated, truth, rng)
    bandwidth_seconds = time.perf_counter() - start
    (result,) = mmd_test(generated, truth, rng, bandwidths=[bandwidth], permutations=permutations)
    return {
        "num_users": num_users,
        "dim": dim,
        "permutations": permutations,
        "bandwidths": 1,
        "cpu": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "library default"),
        "numpy": np.__version__,
        "bandwidth_seconds": round(bandwidth_seconds, 2),
        "seconds": round(time.perf_counter() - start, 2),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "biased": result.biased,
        "unbiased": result.unbiased,
        "p": result.p,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--record", type=Path, default=RECORD)
    args = parser.parse_args(argv)
    found = measure(args.users, args.dim, args.permutations)
    args.record.parent.mkdir(parents=True, exist_ok=True)
    args.record.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    if found["peak_rss_bytes"] > LIMIT_BYTES:
        print(f"error: peak memory {found['peak_rss_bytes']} bytes is over {LIMIT_BYTES}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
