"""What each switch of a method does: every variant beside the reading that it changes, user by user.

    python -m analysis.controls results/small/runs [--readme results/README.md]

A variant is a run whose name continues another's with a dot: aligndiff.released.last_index changes aligndiff.released,
and that changes aligndiff. The error of a difference is over users, for these very weights: where a variant was trained
for itself, another seed may move it as far again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.agreement import compare
from analysis.load import Run, load_runs
from analysis.markdown import put_between
from analysis.overview import BEGIN, END
from analysis.seed_by_seed import origin_of
from analysis.table_formats import pipe_table
from analysis.table_specs import HEADLINE
from harness import cli

HEAD = (
    "run",
    "weights",
    *HEADLINE,
    "beside",
    *(f"{metric}, difference (se)" for metric in HEADLINE),
    "ranks that differ",
)


def table(runs: Sequence[Run]) -> str:
    """One line per completed run, as Markdown.  Raises ValueError if there is none."""
    completed = [run for run in runs if run.record.completed]
    if not completed:
        raise ValueError("no completed run in this folder; run the configuration first")
    return pipe_table(HEAD, [_line(run, origin_of(run, completed)) for run in completed])


def _line(run: Run, origin: Run | None) -> list[str]:
    weights = "trained" if run.record.epochs_run else "taken over" if origin else ""
    own = [f"{100 * run.record.metrics['test_kept'][metric]:.2f}" for metric in HEADLINE]
    if origin is None:
        return [run.key, weights, *own, "", *[""] * len(HEADLINE), ""]
    beside = [compare(origin, run, metric) for metric in HEADLINE]
    gaps = [f"{each.difference:+.2f} ({each.standard_error:.2f})" for each in beside]
    share = f"{beside[0].users_differing / beside[0].users:.1%}"
    return [run.key, weights, *own, origin.record.method, *gaps, share]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.controls", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of runs: {dataset}/{method}/seed{seed}")
    parser.add_argument("--readme", type=Path, help="file whose part between the marks is replaced by the table")
    options = parser.parse_args(argv)
    made = table(load_runs(options.runs, allow_mixed=True).runs)
    if options.readme:
        put_between(options.readme, BEGIN, END, made)
    else:
        print(made)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
