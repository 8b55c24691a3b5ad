"""Say what a configuration will cost before it runs: jobs, hours, memory, disk, from the times of earlier runs.

    python -m workflow.scripts.forecast [--configfile config/demo.yaml] [--device "NVIDIA H200"]

Every record found (under results/ and in results/reference/) tells how long one epoch of a method took on its dataset
and device. With --device, records of other devices are scaled by what methods measured on both took. A dataset without
a record is scaled by training actions, a method without one costs what a relative does (`aligndiff.energy_1` what
`aligndiff` does, and no epochs where it only evaluates again), a family without one is unknown. Each line says which.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import harness.cli
from harness.configuration import check, own_sweeps
from harness.digest import ROOT
from harness.grid import Cell, Grid
from harness.record import CorruptRecordError, RunRecord, read_record
from harness.settings import merge, read_yaml

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
    device: str = ""  # where it was measured
    cut_off: bool = False  # it reached its max_epochs, so that longer training may have gone on
    patience: int = 0  # epochs without a better validation after which it ended

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
        device=record.environment.get("device", "unknown"),
        cut_off=0 < record.epochs_run == record.settings["training"]["max_epochs"],
        patience=_patience(record.settings["training"]),
    )


def _patience(training: dict[str, Any]) -> int:
    return training["patience"] * training["eval_every"]


Costs = dict[tuple[str, str], Cost]  # by dataset and method


def known_costs(folders: Sequence[Path], grid: Grid, device: str | None) -> Costs:
    """Median cost of each (dataset, method) among completed records, scaled to `device` or on any.

    A record of a model that the grid has in another size says nothing about the grid's and is left out.
    Raises ValueError if a folder does not exist.
    """
    actions = expected_actions(grid.config)
    found: dict[str, dict[tuple[str, str], list[Cost]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; --records names folders with finished runs")
        for path in sorted(folder.glob("**/seed*/record.json")):
            try:
                record = read_record(path)
            except CorruptRecordError as error:
                print(f"warning: {error}", file=sys.stderr)
                continue
            if record.completed and _has_size_of(grid, record):
                cost = cost_of(record, actions.get(record.dataset, 0))
                found[cost.device if device else ""][record.dataset, record.method].append(cost)
    measured = {name: {key: _middle(costs) for key, costs in each.items()} for name, each in found.items()}
    return scaled_to(device, measured) if device else measured.get("", {})


def _has_size_of(grid: Grid, record: RunRecord) -> bool:
    """Whether a record's model is the grid's of that name, as far as both state it; yes if the grid has none.

    Numbers with a fraction (rates, scales, weights of losses) cost no time and are not compared.
    """
    if record.method not in grid.contestants:
        return True
    ours, theirs = grid.settings(record.dataset, record.method)["model"], record.settings["model"]
    shared = {name: (ours[name], theirs[name]) for name in ours.keys() & theirs.keys()}
    return all(one == other or {type(one), type(other)} == {float} for one, other in shared.values())


def _middle(costs: list[Cost]) -> Cost:
    return sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2]


def scaled_to(device: str, measured: dict[str, Costs]) -> Costs:
    """Costs on `device`; those of another one times the median ratio of what was measured on both, if anything was."""
    own = measured.get(device, {})
    result = dict(own)
    for other, costs in measured.items():
        ratios = [
            own[key].epoch_seconds / costs[key].epoch_seconds
            for key in own.keys() & costs.keys()
            if own[key].epochs and costs[key].epochs
        ]
        if other == device or not ratios:
            continue
        for key in costs.keys() - result.keys():
            result[key] = _times(costs[key], median(ratios))
    return result


def _times(cost: Cost, ratio: float) -> Cost:
    return replace(cost, epoch_seconds=cost.epoch_seconds * ratio, final_seconds=cost.final_seconds * ratio)


def estimate(grid: Grid, cell: Cell, costs: Costs, actions: dict[str, int]) -> tuple[Cost, str] | None:
    """Cost of a cell and how it is known; None if nothing of its method's family ever ran."""
    origin = grid.contestants[cell.method].weights_of
    parts = cell.method.split(".")
    family, parents = parts[0], [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
    relatives = sorted({method for _, method in costs if method.split(".")[0] == family})
    for method in dict.fromkeys([cell.method, *([origin] if origin else []), *parents, *relatives]):
        found = _of_method(method, cell.dataset, costs, actions)
        if found is None:
            continue
        cost, source = found
        if origin and method != cell.method:
            cost = replace(cost, epochs=0)  # it evaluates trained weights, nothing else
        plan = grid.settings(cell.dataset, cell.method)["training"]
        ended_early = cost.patience < _patience(plan) or (cost.cut_off and cost.epochs < plan["max_epochs"])
        more = cost.epochs > 0 and ended_early
        known = f"{'at least ' if more else ''}{_described(cost)}{source}"
        return cost, known if method == cell.method else f"as {method}: {known}"
    return None


def _described(cost: Cost) -> str:
    if not cost.epochs:
        return f"evaluation of {cost.final_seconds:.1f} s on {cost.device}"
    return f"{cost.epochs} epochs of {cost.epoch_seconds:.1f} s on {cost.device}"


def _of_method(method: str, dataset: str, costs: Costs, actions: dict[str, int]) -> tuple[Cost, str] | None:
    """Cost of a method on a dataset, if need be that of the dataset nearest in size, by actions."""
    if (dataset, method) in costs:
        return costs[dataset, method], ""
    others = {data: cost for (data, name), cost in costs.items() if name == method and cost.actions}
    if not others or not actions.get(dataset):
        return None
    nearest = min(others, key=lambda data: abs(others[data].actions - actions[dataset]))
    scaled = _times(others[nearest], actions[dataset] / others[nearest].actions)
    return replace(scaled, actions=actions[dataset]), f", scaled from {nearest} by actions"


def with_output(records: Sequence[Path], output: Path) -> list[Path]:
    """Where to look for finished runs: what was named, and the configuration's own output where that lies elsewhere."""
    inside = any(output.resolve().is_relative_to(folder.resolve()) for folder in records)
    return [*records, *([output] if output.is_dir() and not inside else [])]


def load_config(configfiles: Sequence[Path]) -> dict[str, Any]:
    """The configuration as the workflow merges it.  Raises ValueError where the schema forbids it."""
    folder = ROOT / "config"
    config = merge(*map(read_yaml, (folder / "datasets.yaml", folder / "config.yaml", *configfiles)))
    config = own_sweeps(config, map(read_yaml, configfiles))
    check(config, folder / "config.schema.yaml")
    return config


def forecast(grid: Grid, costs: Costs, runs: Path) -> list[str]:
    """The lines to print: one per dataset and method, then totals."""
    actions = expected_actions(grid.config)
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in grid.cells:
        groups[cell.dataset, cell.method].append(cell)
    lines, hours, memory, disk, unknown, remaining = [], 0.0, 0, 0, 0, 0
    for (dataset, method), cells in groups.items():
        todo = [cell for cell in cells if not (runs / cell.path / "record.json").is_file()]
        remaining += len(todo)
        found = estimate(grid, cells[0], costs, actions)
        if found is None:
            unknown += len(todo)
            why = "no record of this method or a relative yet"
            if dataset not in actions:
                why = f"datasets.{dataset}.expected.actions is not set, so that no other dataset can be scaled to it"
            lines.append(f"{dataset:10} {method:36} {len(todo):3} to run   {why}")
            continue
        cost, source = found
        hours += len(todo) * cost.seconds / 3600
        memory = max(memory, cost.memory_bytes)
        disk += len(todo) * cost.disk_bytes
        lines.append(
            f"{dataset:10} {method:36} {len(todo):3} to run   {len(todo) * cost.seconds / 3600:7.2f} h   {source}"
        )
    total = f"total: {remaining} of {len(grid.cells)} runs left"
    if unknown < remaining:
        total += (
            f", {hours:.1f} device hours one after another, at most {memory / 2**30:.1f} GiB each, "
            f"{disk / 2**30:.2f} GiB on disk"
        )
    return [*lines, total + (f"; {unknown} runs without an estimate" if unknown else "")]


def expected_actions(config: dict[str, Any]) -> dict[str, int]:
    found = {name: (spec.get("expected") or {}).get("actions") for name, spec in config["datasets"].items()}
    return {name: count for name, count in found.items() if count}


def _where(options: argparse.Namespace, costs: Costs) -> str:
    if options.device and not costs:
        return f": none on {options.device}; run one cell there, and the times of other devices are scaled by it"
    devices = sorted({cost.device for cost in costs.values()})
    return (f", scaled to {options.device}" if options.device else "") + f", measured on {', '.join(devices) or 'none'}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.scripts.forecast", description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="as for snakemake; one or more")
    parser.add_argument("--records", type=Path, nargs="*", default=[ROOT / "results"], help="where earlier runs lie")
    parser.add_argument("--device", help="scale times to this device, e.g. cpu or 'NVIDIA H200'; default: as measured")
    options = parser.parse_args(argv)
    config = load_config(options.configfile)
    grid = Grid(config)
    costs = known_costs(with_output(options.records, Path(config["output"])), grid, options.device)
    print(
        f"forecast for {config['name']}, from {len(costs)} measured pairs of dataset and method{_where(options, costs)}"
    )
    print("\n".join(forecast(grid, costs, Path(config["output"]) / "runs")))
    return 0


if __name__ == "__main__":
    sys.exit(harness.cli.run(main))
