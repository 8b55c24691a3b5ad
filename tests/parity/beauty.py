"""What comparisons by training on Beauty share: command line, checkout, data and the entry of the record."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import data
from harness.compute import keep_freed_memory
from harness.split import Sequences
from tests.parity import checkouts, record


@dataclass(frozen=True)
class Comparison:
    """method: whose reference; module: the command, as `python -m` takes it; described: which data that is."""

    method: str
    module: str
    checkout: Path
    sequences: Sequences
    described: str
    epochs: int
    out: Path

    @classmethod
    def start(cls, method: str, module: str, *, epochs: int, argv: Sequence[str] | None) -> Comparison:
        """Read the command line.  Raises ValueError without a checkout of the reference."""
        parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"{method} on Beauty, by training.")
        parser.add_argument("--references", type=Path, default=checkouts.default_folder(), help="folder of checkouts")
        parser.add_argument("--sequences", type=Path, help=f"Beauty (default {data.BEAUTY})")
        parser.add_argument("--epochs", type=int, default=epochs, help="default %(default)s")
        parser.add_argument("--out", type=Path, default=record.RECORD, help="record to update")
        options = parser.parse_args(argv)
        checkout = checkouts.find(method, options.references)
        if checkout is None:
            raise ValueError(f"no checkout; {checkouts.how_to_get(method, options.references)}")
        keep_freed_memory()
        return cls(method, module, checkout, *data.load(options.sequences), options.epochs, options.out)

    def save(self, key: str, entry: dict[str, Any]) -> None:
        """Put `entry` under the method's `key`, with the command, the data and the machine."""
        origin = {"command": f"python -m {self.module} --epochs {self.epochs}", "data": self.described}
        record.save({self.method: {key: origin | entry | {"environment": record.environment("fp32")}}}, self.out)
