"""Methods as data: a YAML file names a builder module and overrides its fields."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.compute import Compute
from harness.digest import ROOT
from harness.fit import FitPlan
from harness.learner import Learner
from harness.settings import from_mapping, merge, nearest, read_yaml
from harness.split import TrainingView
from harness.streams import Streams

METHODS_DIR = ROOT / "config" / "methods"
LAYERS = ("model", "training", "evaluation")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the final test reads, beside the model. Defaults are the suite's protocol."""

    test_inputs_without_first: bool = False  # the released AlignDiff drops each user's oldest item at test time


@dataclass(frozen=True, kw_only=True)
class Method:
    """One contestant: a builder, its settings, and how it is shown.

    builder:      module with `build(settings, view, streams, compute) -> Learner`
    reuse_weights: method whose trained weights this one evaluates again instead of training
    """

    name: str
    builder: str
    display: str
    summary: str = ""
    variant_of: str | None = None
    reuse_weights: str | None = None
    in_tables: bool = True  # false: run as a check of the evaluation, but no contestant
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    datasets: dict[str, Any] = field(default_factory=dict)

    def resolved(self, dataset: str, *overrides: Mapping[str, Any] | None) -> dict[str, Any]:
        """Settings of this method on a dataset: {"builder", "model", "training", "evaluation"}, all plain values.

        Later layers win: method file, its section for the dataset, then each of `overrides`.
        """
        own = {layer: getattr(self, layer) for layer in LAYERS}
        merged = merge(own, self.datasets.get(dataset), *overrides)
        unknown = set(merged) - set(LAYERS)
        if unknown:
            key = sorted(unknown)[0]
            raise ValueError(f"method {self.name}: unknown section {key!r}{nearest(key, LAYERS)}")
        plan = from_mapping(FitPlan, merged["training"], where=f"method {self.name}: training")
        rules = from_mapping(Evaluation, merged["evaluation"], where=f"method {self.name}: evaluation")
        return {
            "builder": self.builder,
            "model": self._resolved_model(merged["model"]),
            "training": asdict(plan),
            "evaluation": asdict(rules),
        }

    def _resolved_model(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every field of the builder's Config spelled out, so that mistakes are found before anything runs."""
        builder_file(self.builder)
        module = importlib.import_module(self.builder)
        read = getattr(module, "read_config", None)  # a builder whose defaults depend on a field reads by itself
        for name in ("build",) if read else ("build", "Config"):
            if not hasattr(module, name):
                raise ValueError(f"method {self.name}: {self.builder} has no {name!r}; CONTRIBUTING.md says what it is")
        try:
            config = read(values) if read else from_mapping(module.Config, values, where="model")
        except ValueError as error:
            raise ValueError(f"method {self.name}: {error}") from error
        return asdict(config)


def load_method(name: str, folder: Path = METHODS_DIR) -> Method:
    """Read config/methods/<name>.yaml.  Raises ValueError naming the nearest known method."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"unknown method {name!r}{nearest(name, known_methods(folder))}; methods are the files of {folder}"
        )
    values = read_yaml(path)
    if "builder" not in values:
        raise ValueError(f"{path}: expected a mapping with at least 'builder' and 'display'")
    return from_mapping(Method, {"name": name, "display": name, **values}, where=str(path))


def known_methods(folder: Path = METHODS_DIR) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def builder_file(builder: str) -> Path:
    """Source file of a builder module, for its code digest."""
    try:
        spec = importlib.util.find_spec(builder)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ValueError(f"builder {builder!r}: no such module; use a dotted name like 'baselines.sasrec'")
    return Path(spec.origin)


def build_learner(
    method: Method | Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute
) -> Learner:
    """Import the builder and build the learner from a method or its resolved settings."""
    builder = method.builder if isinstance(method, Method) else method["builder"]
    model = method.model if isinstance(method, Method) else method["model"]
    builder_file(builder)
    return importlib.import_module(builder).build(model, view, streams, compute)
