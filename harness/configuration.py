"""The workflow's configuration: checked before anything runs, with one clear message per mistake."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from harness.datasets import DatasetSpec
from harness.interactions import FORMATS
from harness.settings import nearest

# The standard takes 1.0 for a whole number; as a seed it would stand in paths.
WHOLE = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
Validator = extend(Draft202012Validator, type_checker=WHOLE)


def own_sweeps(config: Mapping[str, Any], given: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Leave out the paper's sweeps where what a user gave has a grid of its own and no sweeps."""
    keys = {key for layer in given for key in layer}
    return {**config, "sweeps": []} if "grid" in keys and "sweeps" not in keys else dict(config)


def options_of(configfiles: Iterable[str | Path], config: Mapping[str, Any]) -> list[str]:
    """Return the options of Snakemake that name a configuration again: its files, and what --config was given."""
    files = [str(path) for path in configfiles]
    values = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in config.items()]
    return [*(["--configfile", *files] if files else []), *(["--config", *values] if values else [])]


def check(config: Mapping[str, Any], schema_path: str | Path) -> None:
    """Raise ValueError listing every place where `config` breaks the JSON schema, unknown keys with the nearest."""
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    found = Validator(schema).iter_errors(dict(config))
    errors = sorted(found, key=lambda error: list(map(str, error.path)))
    if errors:
        raise ValueError("configuration: " + "; ".join(_explain(error) for error in errors))


def check_datasets(entries: Mapping[str, Any], needed: Iterable[str] = ()) -> dict[str, DatasetSpec]:
    """Return all datasets, used or not.  Raises ValueError on a mistake in one, or if a `needed` one has no source."""
    specs = {name: DatasetSpec.from_mapping(name, entry) for name, entry in entries.items()}
    for name, spec in specs.items():
        for found in {spec.format, *(address.format for address in spec.urls)} - {None}:
            if found not in FORMATS:
                known = ", ".join(FORMATS)
                raise ValueError(f"datasets.{name}.format: unknown {found!r}{nearest(found, FORMATS)}; known: {known}")
    for name in needed:
        spec = specs[name]
        spec.raw_path(name, "")  # raises where there is neither a file nor an address
        if spec.file is not None and not Path(spec.file).is_file():
            remedy = ", or leave the key out to download it" if spec.urls else ""
            raise ValueError(
                f"datasets.{name}.file: {spec.file}: no such file; put it there or correct the path{remedy}"
            )
    return specs


def typed(value: Any) -> Any:
    """Read text nested in `value` as YAML: Snakemake leaves what stands inside `--config 'a={b: 1}'` as text."""
    if isinstance(value, Mapping):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [typed(inner) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _explain(error: ValidationError) -> str:
    where = ".".join(map(str, error.absolute_path)) or "top level"
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        legal = sorted(error.schema.get("properties", {}))
        unknown = [key for key in error.instance if key not in legal]
        named = ", ".join(f"{key!r}{nearest(key, legal)}" for key in unknown)
        return f"{where}: unknown key {named}; legal keys are {', '.join(legal)}"
    if error.validator == "enum":
        options = list(map(str, error.validator_value))
        return f"{where}: {error.instance!r}{nearest(str(error.instance), options)} is not one of {', '.join(options)}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{where}: missing key {', '.join(map(repr, missing))}"
    if error.validator == "pattern":
        strict = error.validator_value == "^[a-z0-9_]+$"
        take = "lower-case letters, digits, '_'" if strict else "letters, digits, '.', '_', '-' (in a path '/')"
        return f"{where}: {error.instance!r} becomes part of paths; take {take}"
    return f"{where}: {error.message}"
