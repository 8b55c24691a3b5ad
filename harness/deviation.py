"""What differs between the settings that a run had and those that a configuration plans for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ABSENT = object()  # in the place of a value: the run knew no such setting
Deviation = dict[str, tuple[Any, Any]]  # dotted name of a setting -> (as it ran, as planned)


def deviation(ran: Mapping[str, Any], planned: Mapping[str, Any]) -> Deviation:
    """Compare two nested settings in what is planned.

    A plan has what decides a result (`Grid.plan`), a run more. What a run lacks came with later code, and whether it
    did the same before only that code can tell.
    """
    found: Deviation = {}
    for key, wanted in planned.items():
        had = ran.get(key, ABSENT)
        if isinstance(had, Mapping) and isinstance(wanted, Mapping):
            found |= {f"{key}.{name}": pair for name, pair in deviation(had, wanted).items()}
        elif had != wanted:
            found[key] = (had, wanted)
    return dict(sorted(found.items()))


def in_words(found: Deviation) -> str:
    """Return e.g. "training.patience 3 instead of 10, without model.bias (now false)"; nothing for nothing."""
    return ", ".join(_compared(name, *pair) for name, pair in found.items())


def _compared(name: str, ran: Any, planned: Any) -> str:
    if ran is ABSENT:
        return f"without {name} (now {_shown(planned)})"
    return f"{name} {_shown(ran)} instead of {_shown(planned)}"


def _shown(value: Any) -> str:
    """A setting as its file has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
