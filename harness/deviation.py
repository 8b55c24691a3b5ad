"""What differs between the settings that a run had and those that a configuration plans for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Deviation = dict[str, tuple[Any, Any]]  # dotted name of a setting -> (as it ran, as planned)


def deviation(ran: Mapping[str, Any], planned: Mapping[str, Any]) -> Deviation:
    """Compare two nested settings in what both have.

    A plan has what decides a result (`Grid.plan`). What a run lacks came with later code; its code digest tells that.
    """
    found: Deviation = {}
    for key in ran.keys() & planned.keys():
        had, wanted = ran[key], planned[key]
        if isinstance(had, Mapping) and isinstance(wanted, Mapping):
            found |= {f"{key}.{name}": pair for name, pair in deviation(had, wanted).items()}
        elif had != wanted:
            found[key] = (had, wanted)
    return dict(sorted(found.items()))


def in_words(found: Deviation) -> str:
    """Return e.g. "training.max_epochs 30 instead of 200, training.patience 3 instead of 10"; nothing for nothing."""
    return ", ".join(f"{name} {_shown(ran)} instead of {_shown(planned)}" for name, (ran, planned) in found.items())


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
