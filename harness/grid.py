"""The grid of runs that a configuration asks for: which cells, under which settings, with which code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.compute import ComputeSettings
from harness.digest import ROOT, code_digest
from harness.fit import CLOCK, settings_sha256
from harness.methods import METHODS_DIR, Method, builder_file, generates, known_methods, lineage, load_method
from harness.settings import from_mapping, merge, nearest, read_yaml

SHIPPED_DATASETS = ROOT / "config" / "datasets.yaml"
TRAIN_SCRIPT = ROOT / "workflow" / "scripts" / "train.py"


@dataclass(frozen=True, order=True)
class Cell:
    """One run: a dataset, a method (or a point of a sweep) and a seed."""

    dataset: str
    method: str
    seed: int

    @property
    def path(self) -> str:
        return f"{self.dataset}/{self.method}/seed{self.seed}"


@dataclass(frozen=True)
class Contestant:
    """A method as the grid runs it: its file, and what a sweep changes.

    names: under which the configuration may change it, later ones winning
    weights_of: the contestant whose trained weights are evaluated again; None = trained
    """

    method: Method
    names: tuple[str, ...]
    overrides: dict[str, Any]
    display: str
    weights_of: str | None = None


class Grid:
    """All cells of a configuration and what each needs.  Raises ValueError on unknown methods, datasets or keys."""

    def __init__(self, config: Mapping[str, Any], methods_dir: Path = METHODS_DIR) -> None:
        self.config, self._methods_dir = config, methods_dir
        self.contestants: dict[str, Contestant] = {}
        cells: set[Cell] = set()
        for block in config["grid"]:
            for name in block["methods"]:
                self._add_method(name)
            cells |= self._product(block["methods"], block)
        self.sweeps = [self._read(sweep) for sweep in config.get("sweeps") or []]
        for sweep in self.sweeps:
            cells |= self._product(self._add_sweep(sweep), sweep)
        # A method that reuses weights needs the runs it reuses.
        for cell in list(cells):
            origin = self.contestants[cell.method].weights_of
            if origin:
                self._add_method(origin)
                source = self.contestants[origin].weights_of
                if source:
                    raise ValueError(
                        f"method {cell.method!r} reuses the weights of {origin!r}, which are those of {source!r}: "
                        f"name {source!r} instead"
                    )
                cells.add(Cell(cell.dataset, origin, cell.seed))
        self.cells = sorted(cells)
        self._check_names()
        for cell in self.cells:
            self._check_settings(cell)

    def _check_names(self) -> None:
        """Find methods that are misspelt where the configuration speaks of them beside the grid."""
        known = {name for each in self.contestants.values() for name in each.names}
        for name in self.config.get("overrides") or {}:
            if name not in known:
                raise ValueError(f"overrides: {name!r} is not a method of the grid{nearest(name, sorted(known))}")
        datasets = {**self.config["datasets"], **read_yaml(SHIPPED_DATASETS)["datasets"]}
        for each in self.contestants.values():
            for name in each.method.datasets:
                if name not in datasets:
                    path = self._methods_dir / f"{each.method.name}.yaml"
                    raise ValueError(f"{path}: datasets: there is no {name!r}{nearest(name, datasets)}")
        known |= set(known_methods(self._methods_dir))
        for name in self.config.get("analysis", {}).get("mmd", {}).get("methods", []):
            if name not in known:
                raise ValueError(f"analysis.mmd.methods: unknown method {name!r}{nearest(name, sorted(known))}")
            if name in self.contestants:
                self._check_generates(self.contestants[name])

    @staticmethod
    def _check_generates(contestant: Contestant) -> None:
        """Refuse for Table 5 what could show nothing there, before it is trained."""
        where, name = "analysis.mmd.methods", contestant.method.name
        if contestant.weights_of:
            raise ValueError(f"{where}: {name!r} keeps no weights of its own; name {contestant.weights_of!r}")
        if not generates(contestant.method.builder):
            raise ValueError(f"{where}: {name!r} generates no representation; name diffusion models")

    def _check_settings(self, cell: Cell) -> None:
        """Resolve a cell's settings, so that a mistake is found before anything runs, and say whose mistake it is."""
        try:
            self.settings(cell.dataset, cell.method)
        except ValueError as error:
            contestant = self.contestants[cell.method]
            contestant.method.resolved(cell.dataset, contestant.overrides)  # raises if the method's file is at fault
            raise ValueError(f"overrides, as they reach {error}") from error

    def _add_method(self, name: str) -> None:
        if name not in self.contestants:
            method = load_method(name, self._methods_dir)
            self.contestants[name] = Contestant(method, self._names(method), {}, method.display, method.reuse_weights)

    def _names(self, method: Method) -> tuple[str, ...]:
        return ("all", *lineage(method, self._methods_dir))

    def _read(self, sweep: Mapping[str, Any]) -> dict[str, Any]:
        """A sweep with its values as the method reads them: YAML 1.1 takes 1e-3 (no dot) for text."""
        method = load_method(sweep["method"], self._methods_dir)

        def read(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            try:
                settings = method.resolved(sweep["datasets"][0], {"model": {sweep["field"]: value}})
            except ValueError:  # a mistake, which `_check_settings` names with its place
                return value
            return settings["model"][sweep["field"]]

        return {**sweep, "values": [read(value) for value in sweep["values"]]}

    def _add_sweep(self, sweep: Mapping[str, Any]) -> list[str]:
        """Add one contestant per value: the method with one field changed. Returns their names.

        Raises ValueError if that is the name of something else already, or of a point that is trained for one dataset
        and takes the method's weights for another.
        """
        name, method = sweep["name"], load_method(sweep["method"], self._methods_dir)
        names = []
        for value in sweep["values"]:
            point = f"{method.name}.{name}_{value}"
            overrides = {"model": {**sweep.get("fixed", {}), sweep["field"]: value}}
            known_as = (*self._names(method), point)
            there = self.contestants.get(point)
            if point in known_methods(self._methods_dir) or (there and there.overrides != overrides):
                raise ValueError(
                    f"sweeps: {name!r} of {method.name!r} calls a point {point!r}, which is another run's name "
                    "already; give the sweep another name"
                )
            self.contestants[point] = Contestant(method, known_as, overrides, f"{method.display}, {name} = {value}")
            if not sweep["retrain"] or self._is_default(point, sweep["datasets"]):
                self.contestants[point] = replace(self.contestants[point], weights_of=method.name)
            if there and there.weights_of != self.contestants[point].weights_of:
                raise ValueError(
                    f"sweeps: {name!r} of {method.name!r} stands twice, and {point!r} would be trained for datasets "
                    f"of one and take {method.name!r}'s weights for datasets of the other; write one sweep over all of "
                    "them, or give one of the two another name"
                )
            names.append(point)
        return names

    def _is_default(self, point: str, datasets: list[str]) -> bool:
        """Whether a sweep's value is what the method has anyway, so that its training need not be made twice."""
        method, overrides = self.contestants[point].method, self._overrides(point)
        own = merge(*map(self._given, self._names(method)))
        try:
            return all(method.resolved(name, overrides) == method.resolved(name, own) for name in datasets)
        except ValueError:  # a mistake, which `_check_settings` names with its place
            return False

    def _product(self, methods: list[str], block: Mapping[str, Any]) -> set[Cell]:
        known = self.config["datasets"]
        for dataset in block["datasets"]:
            if dataset not in known:
                legal = ", ".join(known)
                raise ValueError(f"grid: unknown dataset {dataset!r}{nearest(dataset, known)}; known: {legal}")
        return {
            Cell(dataset, method, seed)
            for dataset in block["datasets"]
            for method in methods
            for seed in block["seeds"]
        }

    @property
    def datasets(self) -> list[str]:
        return sorted({cell.dataset for cell in self.cells})

    def trained(self) -> list[str]:
        return [name for name, each in self.contestants.items() if each.weights_of is None]

    def reusing(self) -> list[str]:
        return [name for name, each in self.contestants.items() if each.weights_of is not None]

    def deciding_overrides(self, method: str) -> dict[str, Any]:
        """What the configuration changes in a method and what may change its result: all without the clock.

        Order: along its names, then a sweep's value.
        """
        return self._without_clock(self._overrides(method))

    def clock(self) -> dict[str, dict[str, Any]]:
        """When to save and when to stop, for every method that has other than the defaults; decides no result."""
        given = {name: self._overrides(name).get("training") or {} for name in self.contestants}
        clocks = {name: {key: each[key] for key in CLOCK if key in each} for name, each in given.items()}
        return {name: clock for name, clock in clocks.items() if clock}

    def clock_json(self) -> str:
        return json.dumps(self.clock(), sort_keys=True)

    @staticmethod
    def _without_clock(overrides: dict[str, Any]) -> dict[str, Any]:
        training = overrides.get("training")
        if not isinstance(training, Mapping):  # None, or a mistake that `settings` names
            return overrides
        kept = {key: value for key, value in training.items() if key not in CLOCK}
        rest = {key: value for key, value in overrides.items() if key != "training"}
        return rest | ({"training": kept} if kept else {})

    def _overrides(self, method: str) -> dict[str, Any]:
        each = self.contestants[method]
        return merge(*map(self._given, each.names), each.overrides)

    def _given(self, name: str) -> Mapping[str, Any] | None:
        return (self.config.get("overrides") or {}).get(name)

    def settings(self, dataset: str, method: str) -> dict[str, Any]:
        return self.contestants[method].method.resolved(dataset, self._overrides(method))

    def settings_sha256(self, dataset: str, method: str) -> str:
        return settings_sha256(self.settings(dataset, method))

    def deciding_settings(self, dataset: str, method: str) -> dict[str, Any]:
        """Settings that may change the cell's result, as a record holds them (tuples are lists).

        They are without the clock, and without training where nothing is trained.
        """
        settings = json.loads(json.dumps(self.settings(dataset, method)))
        training = {key: value for key, value in settings.pop("training").items() if key not in CLOCK}
        return settings if self.contestants[method].weights_of else settings | {"training": training}

    def code_digest(self, method: str) -> str:
        return code_digest(TRAIN_SCRIPT, builder_file(self.contestants[method].method.builder))

    @cached_property
    def compute(self) -> ComputeSettings:
        return from_mapping(ComputeSettings, self.config["compute"], where="compute")

    def compute_json(self, *, on_gpu: bool) -> str:
        """What jobs are told. A GPU that was planned with is demanded: a job that cannot use it must not go on without.

        Where none was seen, "auto" stays, so that a job can tell it from a CPU that was asked for.
        """
        planned = {"device": "cuda"} if on_gpu else {}
        return json.dumps(asdict(self.compute) | planned, sort_keys=True)

    def deciding_compute_json(self, *, on_gpu: bool) -> str:
        """What of `compute` may change a result, so that nothing else reruns a run that is finished."""
        values = asdict(self.compute) | {"device": "cuda" if on_gpu else "cpu"}
        feeding = ("jobs_per_gpu", "threads") if on_gpu else ("jobs_per_gpu",)
        return json.dumps({name: value for name, value in values.items() if name not in feeding}, sort_keys=True)

    def plan(self) -> dict[str, Any]:
        """What analysis needs to know: expected cells, display names, sweeps, settings, cut-offs, how claims count."""
        return {
            "name": self.config["name"],
            "cells": [
                {
                    "dataset": cell.dataset,
                    "method": cell.method,
                    "seed": cell.seed,
                    "display": self.contestants[cell.method].display,
                    "variant_of": self.contestants[cell.method].method.variant_of,
                    "weights_of": self.contestants[cell.method].weights_of,
                    "summary": self.contestants[cell.method].method.summary,
                }
                for cell in self.cells
                if self.contestants[cell.method].method.in_tables
            ],
            "sweeps": [
                {
                    "name": sweep["name"],
                    "field": sweep["field"],
                    "values": sweep["values"],
                    "method": sweep["method"],
                    "cells": [f"{sweep['method']}.{sweep['name']}_{value}" for value in sweep["values"]],
                }
                for sweep in self.sweeps
            ],
            "settings": {
                dataset: {
                    method: self.deciding_settings(dataset, method)
                    for method in sorted({cell.method for cell in self.cells if cell.dataset == dataset})
                }
                for dataset in self.datasets
            },
            "datasets": {name: {"display": self.config["datasets"][name]["display"]} for name in self.datasets},
            "cutoffs": self.config["analysis"]["cutoffs"],
            "verdicts": self.config["analysis"].get("audit", {}).get("verdicts", True),
        }
