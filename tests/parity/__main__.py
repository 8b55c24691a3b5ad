"""Compare baselines with their reference implementations by exchanging weights; writes baselines/parity.json.

    python -m tests.parity [METHOD ...] [--references DIR]

Each reference is a checkout DIR/METHOD of the repository and commit that baselines/SOURCES.md names; methods without
one are left out, and the command that gets it is printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import cli
from tests.parity import checkouts, record


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description="Parity with references.")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"any of {', '.join(checkouts.METHODS)}")
    parser.add_argument("--references", type=Path, default=checkouts.default_folder(), help="folder of checkouts")
    parser.add_argument("--out", type=Path, default=record.RECORD, help="record to update")
    options = parser.parse_args(argv)
    if unknown := set(options.methods) - set(checkouts.METHODS):
        raise ValueError(f"no comparison of {', '.join(sorted(unknown))}; there are {', '.join(checkouts.METHODS)}")
    entries, failed = {}, []
    for method in options.methods or checkouts.METHODS:
        if obstacle := checkouts.obstacle(method, options.references):
            print(f"{method}: {obstacle}")
            continue
        entries[method] = record.measure(method, options.references / method)
        differences = entries[method]["differences"]
        for name, value in differences.items():
            print(f"{method}: {name}: {value:.1e}")
        failed += [f"{method}: {name}" for name in record.too_large(differences)]
    if entries:
        record.save(entries, options.out)
    if failed:
        print(f"error: above tolerance: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
