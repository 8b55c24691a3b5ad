"""The plan of an analysis: which cells should exist, how they are called, and what is swept.

`plan.json` is written by the workflow from its configuration:

    {"name": "demo",
     "cells": [{"dataset": "beauty", "method": "aligndiff", "seed": 1, "display": "AlignDiff", "variant_of": null,
                "weights_of": null, "summary": "Guidance and energy on a diffusion model."}],
     "sweeps": [{"name": "omega", "field": "correction", "values": [0.01, 0.1], "method": "aligndiff",
                 "cells": ["aligndiff.omega_0.01", "aligndiff.omega_0.1"]}],
     "settings": {"beauty": {"aligndiff": {"model": {"correction": 0.01}, "training": {"max_epochs": 200}}}},
     "datasets": {"beauty": {"display": "Beauty"}},
     "cutoffs": [5, 10, 20],
     "verdicts": true,
     "options": ["--configfile", "config/demo.yaml"]}

`verdicts` is optional: false where the runs are a demonstration, which judges no claim. `options` is optional: what
Snakemake was given as configuration, for the command that reruns a cell. `settings`, optional, are those that decide a
cell's result, so that runs that had others can be told (`analysis.deviations`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REQUIRED = ("name", "cells", "datasets", "cutoffs")
OPTIONAL = ("sweeps", "settings", "options", "verdicts")


@dataclass(frozen=True)
class PlannedCell:
    """One run that should exist."""

    dataset: str
    method: str
    seed: int
    display: str
    variant_of: str | None = None
    weights_of: str | None = None  # the method whose trained weights this one evaluates again
    summary: str = ""  # what the method is, in a sentence

    @property
    def path(self) -> str:
        """Folder of the run below the folder of all runs."""
        return f"{self.dataset}/{self.method}/seed{self.seed}"


@dataclass(frozen=True)
class Sweep:
    """Values of one field, each run under the name beside it in `cells`."""

    name: str
    field: str
    method: str
    values: tuple[Any, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything the analysis knows before it reads a record."""

    name: str
    cells: tuple[PlannedCell, ...]
    datasets: Mapping[str, str]  # key -> display name, in order
    cutoffs: tuple[int, ...]
    sweeps: tuple[Sweep, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # dataset -> method -> resolved settings
    options: tuple[str, ...] = ()  # arguments of Snakemake that name the configuration
    verdicts: bool = True  # whether claims are judged by these runs

    @property
    def paths(self) -> frozenset[str]:
        """Folders of all planned runs below the folder of all runs."""
        return frozenset(cell.path for cell in self.cells)

    def seeds(self, dataset: str, method: str) -> list[int]:
        return [cell.seed for cell in self.cells if (cell.dataset, cell.method) == (dataset, method)]

    def methods(self) -> dict[str, PlannedCell]:
        """One planned cell per method, in the order of the plan; it carries display name and origin."""
        found: dict[str, PlannedCell] = {}
        for cell in self.cells:
            found.setdefault(cell.method, cell)
        return found

    @property
    def headline_cutoff(self) -> int:
        """K where only one is shown: 10, unless the plan has none."""
        return 10 if 10 in self.cutoffs else self.cutoffs[0]

    def labels(self) -> dict[str, str]:
        """Display name of every method, followed by its key where two methods share one."""
        shown = Counter(cell.display for cell in self.methods().values())
        return {
            name: cell.display if shown[cell.display] < 2 else f"{cell.display} ({name})"
            for name, cell in self.methods().items()
        }

    def swept(self) -> set[str]:
        """Methods that exist only as points of a sweep."""
        return {name for sweep in self.sweeps for name in sweep.cells} - {sweep.method for sweep in self.sweeps}


def read_plan(path: Path | str) -> Plan:
    """Read plan.json.  Raises ValueError naming the file and the key that is wrong."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    try:
        return _plan(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a plan: {_reason(error)}") from error


def _plan(values: Mapping[str, Any]) -> Plan:
    if not isinstance(values, Mapping):
        raise ValueError(f"expected an object with {', '.join(REQUIRED)}")
    missing = [key for key in REQUIRED if key not in values]
    unknown = sorted(set(values) - set(REQUIRED) - set(OPTIONAL))
    if missing or unknown:
        raise ValueError(f"keys missing: {missing}, unknown: {unknown}; legal: {', '.join(REQUIRED + OPTIONAL)}")
    cells = tuple(PlannedCell(**cell) for cell in values["cells"])
    datasets = {key: entry.get("display", key) for key, entry in values["datasets"].items()}
    strange = sorted({cell.dataset for cell in cells} - set(datasets))
    if strange:
        raise ValueError(f"cells name datasets {strange}, which `datasets` lacks: {', '.join(datasets)}")
    if len({cell.path for cell in cells}) != len(cells):
        raise ValueError("a cell is listed twice")
    return Plan(
        name=str(values["name"]),
        cells=cells,
        datasets=datasets,
        cutoffs=tuple(int(k) for k in values["cutoffs"]),
        sweeps=tuple(_sweep(sweep) for sweep in values.get("sweeps") or []),
        settings=values.get("settings") or {},
        options=tuple(values.get("options") or ()),
        verdicts=bool(values.get("verdicts", True)),
    )


def _sweep(values: Mapping[str, Any]) -> Sweep:
    sweep = Sweep(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    if len(sweep.values) != len(sweep.cells):
        raise ValueError(f"sweep {sweep.name}: {len(sweep.values)} values but {len(sweep.cells)} cells")
    return sweep


def _reason(error: Exception) -> str:
    return f"key {error} is missing" if isinstance(error, KeyError) else str(error)
