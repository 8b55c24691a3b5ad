"""Say how far a configuration has come: cells done, changed, failed, running, interrupted, and the time that is left.

    python -m workflow.scripts.progress [--configfile config/demo.yaml]

A cell is running while a process holds its lock, and changed if it is finished and had other settings than the
configuration now gives it; the time of the rest comes from finished records, as in the forecast.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness.cli
from harness.deviation import deviation, in_words
from harness.digest import ROOT
from harness.grid import Cell, Grid
from harness.lock import is_held
from harness.record import CorruptRecordError, read_record
from workflow.scripts.forecast import Cost, Costs, estimate, expected_actions, known_costs, load_config, with_output

STATES = ("done", "changed", "failed", "damaged", "running", "interrupted", "waiting")
UNFINISHED = ("changed", "damaged", "running", "interrupted", "waiting")


@dataclass(frozen=True)
class Standing:
    """Where a cell stands; epoch is of the last checkpoint, seconds since the running process began.

    changed: what differs from the settings that it has now, in words
    """

    cell: Cell
    state: str
    epoch: int | None = None
    seconds: float = 0.0
    changed: str = ""


def standing(cell: Cell, output: Path, planned: Mapping[str, Any]) -> Standing:
    """Where `cell` stands; `planned`: its settings now."""
    folder = output / "runs" / cell.path
    saved = sorted((output / "checkpoints" / cell.path).glob("epoch-*.ckpt"))
    epoch = int(re.findall(r"\d+", saved[-1].name)[0]) if saved else None
    with contextlib.suppress(FileNotFoundError):  # it may end while we look
        if is_held(folder):
            return Standing(cell, "running", epoch, time.time() - (folder / ".lock").stat().st_mtime)
    if not (folder / "record.json").exists():
        return Standing(cell, "interrupted" if saved else "waiting", epoch)
    try:
        record = read_record(folder / "record.json")
    except CorruptRecordError:
        return Standing(cell, "damaged")
    if changed := in_words(deviation(record.settings, planned)):
        return Standing(cell, "changed", changed=changed)
    return Standing(cell, "done" if record.completed else "failed")


def seconds_left(one: Standing, cost: Cost) -> float:
    """What a cell still needs: without its saved epochs, or without the time it has been running."""
    saved = (one.epoch or 0) * cost.epoch_seconds
    return max(cost.seconds - max(saved, one.seconds), 0.0)


def report(grid: Grid, output: Path, costs: Costs) -> list[str]:
    """The lines to print: every cell that runs, was interrupted or failed, the counts, the time left."""
    actions = expected_actions(grid.config)
    standings = [standing(cell, output, grid.deciding_settings(cell.dataset, cell.method)) for cell in grid.cells]
    lines, left, unknown = [], 0.0, 0
    for one in standings:
        if one.state not in ("done", "waiting"):
            epoch = f", epoch {one.epoch} saved" if one.epoch else ""
            running = f", for {one.seconds / 60:.0f} min" if one.state == "running" else ""
            changed = f": had {one.changed}" if one.changed else ""
            lines.append(f"{one.state:11} {one.cell.path}{running}{epoch}{changed}")
        if one.state in UNFINISHED:
            found = estimate(grid, one.cell, costs, actions)
            left += seconds_left(one, found[0]) if found else 0.0
            unknown += found is None
    counts = Counter(one.state for one in standings)
    lines.append(f"{len(standings)} cells: " + ", ".join(f"{counts[state]} {state}" for state in STATES))
    at_a_time = max(counts["running"], 1)
    lines.append(
        f"left: {left / 3600:.2f} hours one after another, {left / at_a_time / 3600:.2f} with {at_a_time} at a time"
        + (f"; and {unknown} cells without an estimate, which are not in this" if unknown else "")
    )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.progress", description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="as for snakemake; one or more")
    parser.add_argument("--records", type=Path, nargs="*", default=[ROOT / "results"], help="where finished runs lie")
    options = parser.parse_args(argv)
    config = load_config(options.configfile)
    grid = Grid(config)
    output = Path(config["output"])
    print("\n".join(report(grid, output, known_costs(with_output(options.records, output), grid, None))))
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
