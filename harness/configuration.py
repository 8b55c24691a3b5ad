"""The workflow's configuration: checked before anything runs, with one clear message per mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from harness.settings import nearest


def check(config: Mapping[str, Any], schema_path: str | Path) -> None:
    """Raise ValueError listing every place where `config` breaks the JSON schema, unknown keys with the nearest."""
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    found = Draft202012Validator(schema).iter_errors(dict(config))
    errors = sorted(found, key=lambda error: list(map(str, error.path)))
    if errors:
        raise ValueError("configuration: " + "; ".join(_explain(error) for error in errors))


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
    return f"{where}: {error.message}"
