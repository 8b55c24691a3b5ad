"""Check every finished run of a folder: record readable, ranks as recorded, metrics as the ranks give them.

    python -m workflow.scripts.verify --runs results/paper/runs [--delete] [--delete-out-of-memory]

Snakemake looks at dates, not at contents. With --delete the outputs of damaged runs go, so that the next `snakemake`
puts them back, where a run kept what it had when it finished and that is sound, or makes the run again.
So do, with --delete-out-of-memory, those that ended for want of GPU memory, which another process may have held: the
next `snakemake` goes on from their checkpoints.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import harness.cli
from harness.metrics import summarise
from harness.record import CorruptRecordError, read_ranks, read_record
from harness.run_files import RunFiles

Metrics = dict[str, dict[str, float]]


def problem_of(path: Path) -> str | None:
    """What is wrong with the run whose record is at `path`; None if nothing is."""
    try:
        record = read_record(path)
        ranks = read_ranks(path, record)
    except CorruptRecordError as error:
        return harness.cli.one_line(error)
    lengths = {len(rank_U) for rank_U in ranks.values()}
    if record.completed and lengths != {record.num_users}:
        return f"{path}: {record.num_users} users, but ranks of {sorted(lengths)}"
    if not same({name: summarise(rank_U) for name, rank_U in ranks.items()}, record.metrics):
        return f"{path}: metrics are not those of its ranks"
    files = RunFiles(path.parent)
    if files.weights_altered():
        return f"{files.weights}: not what the run had when it finished"
    return None


def is_out_of_memory(path: Path) -> bool:
    return read_record(path).status == "out_of_memory"


def delete_outputs(folder: Path) -> None:
    """Not what the folder keeps of a finished run, which is checked before anything is taken from it."""
    for path in RunFiles(folder).outputs:
        path.unlink(missing_ok=True)
    print(f"deleted: the outputs in {folder}")


def same(ours: Metrics, theirs: Metrics) -> bool:
    """Compare up to the last digits, in which sums may differ between machines."""
    flat, other = ({(part, name): v for part in each for name, v in each[part].items()} for each in (ours, theirs))
    return flat.keys() == other.keys() and all(math.isclose(flat[key], other[key], rel_tol=1e-9) for key in flat)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.verify", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True, type=Path, help="folder searched for seed*/record.json and ranks.npz")
    parser.add_argument("--delete", action="store_true", help="remove the outputs of damaged runs")
    parser.add_argument(
        "--delete-out-of-memory",
        action="store_true",
        help="remove the outputs of runs that ended for want of memory",
    )
    options = parser.parse_args(argv)
    if not options.runs.is_dir():
        raise ValueError(f"{options.runs}: no such folder")
    folders = sorted(path for path in options.runs.glob("**/seed*") if path.is_dir())
    # Without a record a run is unfinished, and Snakemake sees that by itself.
    finished = [folder for folder in folders if (folder / "record.json").exists()]
    damaged = {folder: problem for folder in finished if (problem := problem_of(folder / "record.json"))}
    for folder, problem in damaged.items():
        print(f"damaged: {problem}")
        if options.delete:
            delete_outputs(folder)
    short = [folder for folder in finished if folder not in damaged and is_out_of_memory(folder / "record.json")]
    for folder in short:
        print(f"out of memory: {folder}")
        if options.delete_out_of_memory:
            delete_outputs(folder)
    print(f"{len(finished)} runs checked, {len(damaged)} damaged" + (f", {len(short)} out of memory" if short else ""))
    return int(bool(damaged) and not options.delete)


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
