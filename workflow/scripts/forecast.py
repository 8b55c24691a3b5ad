"""Say what a configuration will cost before it runs: jobs, hours, memory, disk, from the times of earlier runs.

    python -m workflow.scripts.forecast [--configfile config/demo.yaml] [--device "NVIDIA H200"]

Every record found (under results/ and in results/reference/) tells how long one epoch of a method took on its dataset
and device. A dataset without a record is scaled by training actions, a method without one is listed as unknown;
nothing is guessed silently.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import harness.cli
from harness.configuration import check
from harness.digest import ROOT
from harness.grid import Cell, Grid
from harness.record import CorruptRecordError, RunRecord, read_record
from harness.settings import merge

WEIGHT_BYTES = 4  # per parameter, in weights.safetensors
RANK_BYTES = 4 * 2  # per user: four int32 arrays, compressed to about half


@dataclass(frozen=True)
class Cost:
    """What one run of a method on a dataset took on a device: seconds per epoch beside evaluation of the end."""

    epochs: int
    epoch_seconds: float
    final_seconds: float
    memory_bytes: int
    disk_bytes: int
    actions: int

    @property
    def seconds(self) -> float:
        return self.epochs * self.epoch_seconds + self.final_seconds


def cost_of(record: RunRecord, actions: int) -> Cost:
    epochs = max(record.epochs_run, 1)
    return Cost(
        epochs=record.epochs_run,
        epoch_seconds=record.train_seconds / epochs,
        final_seconds=record.eval_seconds,
        memory_bytes=record.peak_memory_bytes,
        disk_bytes=WEIGHT_BYTES * record.num_parameters + RANK_BYTES * record.num_users,
        actions=actions,
    )


def known_costs(folders: Sequence[Path], actions: dict[str, int], device: str | None) -> dict[tuple[str, str], Cost]:
    """Median cost of each (dataset, method) among completed records, on `device` or on any."""
    found: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for folder in folders:
        for path in sorted(folder.glob("**/seed*/record.json")):
            try:
                record = read_record(path)
            except CorruptRecordError as error:
                print(f"warning: {error}", file=sys.stderr)
                continue
            if record.completed and (device is None or record.environment.get("device") == device):
                found[record.dataset, record.method].append(cost_of(record, actions.get(record.dataset, 0)))
    return {key: sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2] for key, costs in found.items()}


def estimate(cell: Cell, costs: dict[tuple[str, str], Cost], actions: dict[str, int]) -> tuple[Cost, bool] | None:
    """Cost of a cell and whether it was scaled from another dataset; None if the method never ran."""
    if (cell.dataset, cell.method) in costs:
        return costs[cell.dataset, cell.method], False
    others = [cost for (_, method), cost in costs.items() if method == cell.method and cost.actions]
    if not others or not actions.get(cell.dataset):
        return None
    nearest = min(others, key=lambda cost: abs(cost.actions - actions[cell.dataset]))
    ratio = actions[cell.dataset] / nearest.actions
    scaled = Cost(
        nearest.epochs,
        nearest.epoch_seconds * ratio,
        nearest.final_seconds * ratio,
        nearest.memory_bytes,
        nearest.disk_bytes,
        actions[cell.dataset],
    )
    return scaled, True


def load_config(configfile: Path | None) -> dict[str, Any]:
    """The configuration as Snakemake would merge it.  Raises ValueError where the schema forbids it."""
    folder = ROOT / "config"
    files = [folder / "datasets.yaml", folder / "config.yaml", *([configfile] if configfile else [])]
    config = merge(*map(_read_yaml, files))
    check(config, folder / "config.schema.yaml")
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a mapping of keys to values, got {type(found).__name__}")
    return found


def forecast(grid: Grid, costs: dict[tuple[str, str], Cost], runs: Path) -> list[str]:
    """The lines to print: one per dataset and method, then totals."""
    actions = expected_actions(grid.config)
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in grid.cells:
        groups[cell.dataset, cell.method].append(cell)
    lines, hours, memory, disk, unknown, remaining = [], 0.0, 0, 0, 0, 0
    for (dataset, method), cells in groups.items():
        todo = [cell for cell in cells if not (runs / cell.path / "record.json").is_file()]
        remaining += len(todo)
        found = estimate(cells[0], costs, actions)
        if found is None:
            unknown += len(todo)
            lines.append(f"{dataset:10} {method:32} {len(todo):3} to run   no record of this method yet")
            continue
        cost, scaled = found
        hours += len(todo) * cost.seconds / 3600
        memory = max(memory, cost.memory_bytes)
        disk += len(todo) * cost.disk_bytes
        source = "scaled by actions" if scaled else f"{cost.epochs} epochs of {cost.epoch_seconds:.1f} s"
        lines.append(
            f"{dataset:10} {method:32} {len(todo):3} to run   {len(todo) * cost.seconds / 3600:7.2f} h   {source}"
        )
    lines.append(
        f"total: {remaining} of {len(grid.cells)} runs left, {hours:.1f} device hours one after another, "
        f"at most {memory / 2**30:.1f} GiB each, {disk / 2**30:.2f} GiB on disk"
        + (f"; {unknown} runs without an estimate" if unknown else "")
    )
    return lines


def expected_actions(config: dict[str, Any]) -> dict[str, int]:
    found = {name: (spec.get("expected") or {}).get("actions") for name, spec in config["datasets"].items()}
    return {name: count for name, count in found.items() if count}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.forecast", description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, help="as for snakemake; default config/config.yaml alone")
    parser.add_argument("--records", type=Path, nargs="*", default=[ROOT / "results"], help="where earlier runs lie")
    parser.add_argument("--device", help="only records of this device, e.g. cpu or 'NVIDIA H200'")
    options = parser.parse_args(argv)
    config = load_config(options.configfile)
    grid = Grid(config)
    costs = known_costs(options.records, expected_actions(config), options.device)
    devices = f" on {options.device}" if options.device else ""
    print(f"forecast for {config['name']}, from {len(costs)} measured pairs of dataset and method{devices}")
    print("\n".join(forecast(grid, costs, Path(config["output"]) / "runs")))
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
