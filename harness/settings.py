"""From a mapping read out of YAML to a frozen dataclass, refusing whatever does not belong."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


def nearest(name: str, legal: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the closest legal name, or an empty string."""
    close = difflib.get_close_matches(str(name), list(legal), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML readers would take the last without a word."""

    def compose_mapping_node(self, anchor):
        node, names = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
                names.add(key.value)
        return node


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.  Raises ValueError naming the file."""
    try:
        found = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeyLoader) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a mapping of keys to values, got {type(found).__name__}")
    return found


def from_mapping(cls: type[T], values: Mapping[str, Any] | None, *, where: str) -> T:
    """Build the dataclass `cls` from `values`; `where` names the source in messages.

    Raises ValueError on an unknown key, naming it and the nearest legal one, on a missing key, and on a value of
    the wrong type.
    """
    if values is not None and not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping, got {values!r}")
    values = dict(values or {})
    hints = typing.get_type_hints(cls)
    legal = {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in legal:
            raise ValueError(
                f"{where}: unknown key {key!r}{nearest(key, legal)}; legal keys are {', '.join(sorted(legal))}"
            )
        values[key] = _coerce(value, legal[key], f"{where}: {key}")
    empty = dataclasses.MISSING
    required = [f.name for f in dataclasses.fields(cls) if f.default is empty and f.default_factory is empty]  # type: ignore[arg-type]
    missing = [name for name in required if name not in values]
    if missing:
        raise ValueError(f"{where}: missing key {', '.join(map(repr, missing))}")
    try:
        return cls(**values)
    except ValueError as error:  # a value out of range
        raise ValueError(f"{where}: {error}") from error


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Check one value against its annotation; whole numbers are accepted where a float is expected."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(repr, args))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _coerce(value, next(arg for arg in args if arg is not type(None)), where)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        return origin(_coerce(item, args[0], where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected a mapping, got {value!r}")
        return dict(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3 (no dot) as text.
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{where}: expected a number, got {value!r}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not a finite number")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def require(condition: bool, field: str, value: Any, legal: str) -> None:
    """Raise ValueError unless `condition`: for range checks in a config's __post_init__."""
    if not condition:
        raise ValueError(f"{field}: {value!r} is out of range, legal values are {legal}")


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge mappings, later layers over earlier ones, nested mappings key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer is not None and not isinstance(layer, Mapping):
            raise ValueError(f"settings: expected a mapping, got {layer!r}")
        for key, value in (layer or {}).items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
