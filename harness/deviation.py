"""What differs between the settings that a run had and those that a configuration plans for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.fit import CLOCK

ABSENT = "absent"  # stands for a setting that one side does not have: it came or went with the code

Deviation = dict[str, tuple[Any, Any]]  # dotted name of a setting -> (as it ran, as planned)


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved settings as a record holds them, but for CLOCK, which says when to save and stop and decides nothing."""
    values = json.loads(json.dumps(settings))  # tuples are lists in a record
    for name in CLOCK:
        values.get("training", {}).pop(name, None)
    return values


def deviation(ran: Mapping[str, Any], planned: Mapping[str, Any]) -> Deviation:
    """Compare two resolved settings in the sections that `planned` has.

    A run that ranks the weights of another has no training of its own, so its plan has no such section.
    """
    return _differing({name: section for name, section in deciding(ran).items() if name in planned}, deciding(planned))


def in_words(found: Deviation) -> str:
    """Return e.g. "training.max_epochs 30 instead of 200, training.patience 3 instead of 10"; nothing for nothing."""
    return ", ".join(f"{name} {_shown(ran)} instead of {_shown(planned)}" for name, (ran, planned) in found.items())


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Deviation:
    found: Deviation = {}
    for key in sorted({*ours, *theirs}):
        one, other = ours.get(key, ABSENT), theirs.get(key, ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= {f"{key}.{name}": pair for name, pair in _differing(one, other).items()}
        elif one != other:
            found[key] = (one, other)
    return found
