"""A method beside what it should be compared with, of the same seed, user by user.

    python -m analysis.seed_by_seed results/reference/runs [--beside results/reference/other/runs]

Every variant stands beside the reading that it changes, every AlignDiff beside the DiffuRec of its configuration. The
error of a difference is over users, for these very weights: what another seed would give it cannot say, so the seeds
stand one below the other.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from analysis.agreement import compare
from analysis.load import Run, load_runs
from analysis.mmd_table import RIVAL
from analysis.table_formats import pipe_table
from analysis.table_specs import CLAIMANT, HEADLINE, TUNED
from harness import cli

PROTOCOLS = ("kept", "hidden")
# DiffuRec's configuration beside a reading of AlignDiff that it does not have; otherwise the one of the same name.
RIVAL_CONFIGURATIONS = {
    "released": "",
    "released.keys": "keys",
    "tuned.released.keys": "tuned",
    "tuned.without_guidance": "tuned",  # neither has one
}
CONTINUED = re.compile(r"\.[^0-9].*")  # omega_0.1 is no variant of a sweep's omega_0
HEAD = (
    *("", "beside", "seed", "best epoch of", "beside it"),
    *(f"{metric}, {seen}" for seen, metric in product(PROTOCOLS, HEADLINE)),
)


def origin_of(run: Run, runs: Iterable[Run]) -> Run | None:
    """The run of the same data and seed with the longest name that `run`'s continues; None for a reading itself."""
    found = [other for other in _of_same_seed(run, runs) if _continues(run, other)]
    return max(found, key=lambda other: len(other.record.method), default=None)


def rival_of(run: Run, runs: Iterable[Run]) -> Run | None:
    """The DiffuRec of the same data and seed that an AlignDiff is to be compared with; None for everything else."""
    name, _, configuration = run.record.method.partition(".")
    wanted = ".".join(filter(None, (RIVAL, RIVAL_CONFIGURATIONS.get(configuration, configuration))))
    found = [other for other in _of_same_seed(run, runs) if name == CLAIMANT and other.record.method == wanted]
    return found[0] if found else None


def _of_same_seed(run: Run, runs: Iterable[Run]) -> list[Run]:
    same = (run.record.dataset, run.record.data_sha256, run.record.seed)
    return [r for r in runs if (r.record.dataset, r.record.data_sha256, r.record.seed) == same]


def _continues(run: Run, other: Run) -> bool:
    return CONTINUED.fullmatch(run.record.method.removeprefix(other.record.method)) is not None


def table(runs: Sequence[Run], others: Sequence[Run] | None = None, names: Mapping[str, str] | None = None) -> str:
    """Return every pair's differences, own minus the other's, in percentage points as Markdown; "" without a pair.

    others: where the other side is looked for, by default among `runs`; names: what methods and datasets are called.
    """
    ours = [run for run in runs if run.record.completed]
    theirs = ours if others is None else [run for run in others if run.record.completed]
    pairs = [
        (run, other) for partner in (rival_of, origin_of) for run in ours if (other := partner(run, theirs)) is not None
    ]
    pairs.sort(key=lambda pair: (pair[0].record.dataset, pair[0].record.method != TUNED))  # the main pair first
    return pipe_table(HEAD, [_line(*pair, names or {}) for pair in pairs]) if pairs else ""


def _line(run: Run, other: Run, names: Mapping[str, str]) -> list[str]:
    own, others = (names.get(each.record.method, each.record.method) for each in (run, other))
    where = names.get(run.record.dataset, run.record.dataset)
    gaps = [compare(other, run, metric, f"test_{seen}") for seen, metric in product(PROTOCOLS, HEADLINE)]
    epochs = [_epochs(each) for each in (run, other)]
    said = [f"{gap.difference:+.2f} ({gap.standard_error:.2f})" for gap in gaps]
    return [f"{own}, {where}", others, str(run.record.seed), *epochs, *said]


def _epochs(run: Run) -> str:
    return f"{run.record.best_epoch} of {run.record.epochs_run}" if run.record.epochs_run else "taken over"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.seed_by_seed", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of runs: {dataset}/{method}/seed{seed}")
    parser.add_argument("--beside", type=Path, help="folder of the runs to compare with; without it the same one")
    options = parser.parse_args(argv)
    folders = [folder for folder in (options.runs, options.beside) if folder]
    made = table(*(load_runs(folder, allow_mixed=True).runs for folder in folders))
    if not made:
        raise ValueError(
            f"no pair in {' and '.join(map(str, folders))}: a variant and what it changes, or AlignDiff "
            "and DiffuRec of one configuration, need runs of one dataset and seed"
        )
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
