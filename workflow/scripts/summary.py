"""Print the result table of a finished workflow and where its report is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.summary import summary
from harness import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.summary", description=__doc__)
    parser.add_argument("--output", required=True, type=Path, help="the configuration's output folder")
    output = parser.parse_args(argv).output
    print(summary(output / "tables", output / "report.html", colour=sys.stdout.isatty()))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
