"""Methods as data: a YAML file names a builder module and overrides its fields."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
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
    extends:      method whose settings these ones change; what stands here wins, also over its sections for datasets
    reuse_weights: method whose trained weights this one evaluates again instead of training; extends it
    """

    name: str
    builder: str
    display: str
    summary: str = ""
    variant_of: str | None = None
    extends: str | None = None
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
        if not read and not is_dataclass(module.Config):
            raise ValueError(f"method {self.name}: {self.builder}.Config needs @dataclass(frozen=True, kw_only=True)")
        try:
            config = read(values) if read else from_mapping(module.Config, values, where="model")
        except ValueError as error:
            raise ValueError(f"method {self.name}: {error}") from error
        return asdict(config)


def load_method(name: str, folder: Path = METHODS_DIR, *, extended_by: tuple[str, ...] = ()) -> Method:
    """Read config/methods/<name>.yaml and what it extends.  Raises ValueError naming the nearest known method."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"unknown method {name!r}{nearest(name, known_methods(folder))}; methods are the files of {folder}"
        )
    values = read_yaml(path)
    base = _base(path, values, folder, (*extended_by, name))
    if base is None and "builder" not in values:
        raise ValueError(f"{path}: expected a mapping with at least 'builder' and 'display', or with 'extends'")
    inherited = {"builder": base.builder, "variant_of": base.variant_of or base.name} if base else {}
    own = from_mapping(Method, {"name": name, "display": name, **inherited, **values}, where=str(path))
    return _extended(base, own) if base else own


def _base(path: Path, values: Mapping[str, Any], folder: Path, names: tuple[str, ...]) -> Method | None:
    """The method that a file extends or whose weights it ranks again, if it does either."""
    given = [key for key in ("extends", "reuse_weights") if values.get(key) is not None]
    if not given:
        return None
    key, base = given[0], values[given[0]]
    if len(given) > 1:
        raise ValueError(f"{path}: 'extends' and 'reuse_weights' together; the latter extends what it names")
    if not isinstance(base, str):
        raise ValueError(f"{path}: {key}: expected the name of a method, got {base!r}")
    if base in names:
        raise ValueError(f"{path}: extends itself, by way of {' and '.join(names)}")
    try:
        found = load_method(base, folder, extended_by=names)
    except ValueError as error:
        raise ValueError(f"{path}: {key}: {error}") from error
    if found.reuse_weights:
        raise ValueError(f"{path}: {key}: {base} is not trained; name {found.reuse_weights}, whose weights it ranks")
    return found


def _extended(base: Method, own: Method) -> Method:
    if own.reuse_weights:  # nothing is trained, so how the other was is no setting of this one
        untrained = {dataset: {**(section or {}), "training": {}} for dataset, section in base.datasets.items()}
        base = replace(base, training={}, datasets=untrained)
    below = {layer: getattr(base, layer) for layer in LAYERS}
    above = {layer: getattr(own, layer) for layer in LAYERS}
    sections = {
        dataset: merge(base.datasets.get(dataset), above, own.datasets.get(dataset))
        for dataset in {**base.datasets, **own.datasets}
    }
    return replace(own, **merge(below, above), datasets=sections)


def lineage(method: Method, folder: Path = METHODS_DIR, *, after: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names from the first to the method's own: what its file extends, ranks again, or is another recipe of."""
    base = method.extends or method.reuse_weights or method.variant_of
    if base in (*after, method.name):
        raise ValueError(f"{folder / method.name}.yaml: variant_of {base!r} leads back to itself; name what it varies")
    if not base:
        return (method.name,)
    return (*lineage(load_method(base, folder), folder, after=(*after, method.name)), method.name)


def known_methods(folder: Path = METHODS_DIR) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def builder_file(builder: str) -> Path:
    """Source file of a builder module, for its code digest."""
    try:
        spec = importlib.util.find_spec(builder)
    except (ImportError, ValueError, TypeError):  # the last two of a name that begins with a dot
        spec = None
    if spec is None or spec.origin is None:
        raise ValueError(f"builder {builder!r}: no such module; use a dotted name like 'baselines.sasrec'")
    return Path(spec.origin)


def generates(builder: str) -> bool:
    """Whether a class of the builder's module has `represent`: what Table 5 and Figure 4 ask of a learner."""
    builder_file(builder)
    return any(hasattr(found, "represent") for found in vars(importlib.import_module(builder)).values())


def build_learner(settings: Mapping[str, Any], view: TrainingView, streams: Streams, compute: Compute) -> Learner:
    """Import the builder and build the learner from a method's resolved settings."""
    builder_file(settings["builder"])
    return importlib.import_module(settings["builder"]).build(settings["model"], view, streams, compute)
