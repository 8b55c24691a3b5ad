"""Fetch the raw file of one dataset, checked, with mirrors and retries."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from harness import cli
from harness.datasets import DatasetSpec
from harness.fetch import FetchPlan, fetch


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.download", description=__doc__)
    parser.add_argument("--dataset", required=True, help="key in config/datasets.yaml")
    parser.add_argument("--spec", required=True, type=json.loads, help="the dataset's entry, as JSON")
    parser.add_argument("--target", required=True, help="where to put the file")
    parser.add_argument("--mirror", help="folder with files named like the last part of their address")
    parser.add_argument("--tries", type=int, default=FetchPlan.tries, help="per address (default %(default)s)")
    parser.add_argument(
        "--read-timeout",
        type=float,
        default=FetchPlan.read_timeout,
        help="seconds without a byte (default %(default)s)",
    )
    options = parser.parse_args(argv)
    spec = DatasetSpec.from_mapping(options.dataset, options.spec)
    plan = FetchPlan(tries=options.tries, read_timeout=options.read_timeout)
    fetch(options.dataset, spec, options.target, mirror=options.mirror, plan=plan)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
