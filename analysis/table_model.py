"""A table as plain data, between building and writing: blocks of rows of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.load import PROTOCOLS
from analysis.measured import NOT_RUN, Cell, as_json

KINDS_OF_ROWS = ("rows", "derived", "others")


@dataclass(frozen=True)
class Row:
    """One method (or dataset, in Table 1). `method` names mixed runs with their digests in brackets.

    group: heading over rows that stand beside the paper's, such as floors; empty for the paper's own.
    """

    label: str
    method: str
    cells: tuple[Cell, ...]
    group: str = ""

    @property
    def base(self) -> str:
        return self.method.partition(" [")[0]

    @property
    def is_measured(self) -> bool:
        return any(cell.value is not None for cell in self.cells)

    @property
    def runs_text(self) -> str:
        """How many runs are behind the row, "3 of 5" if some are missing; empty where none was planned."""
        n, planned = (max(getattr(cell, name) for cell in self.cells) for name in ("n", "planned"))
        if not planned:
            return ""
        return str(n) if n == planned else f"{n} of {planned}"

    def note(self, columns: Sequence[str]) -> str:
        """What is amiss with the row or what it was compared with, by column where that differs; may be empty."""
        where: dict[str, list[str]] = {}
        for column, cell in zip(columns, self.cells, strict=True):
            where.setdefault(cell.note, []).append(column)
        if len(where) < 2:
            return "".join(where)
        return "; ".join(f"{', '.join(names)}: {note}" for note, names in where.items() if note)


@dataclass(frozen=True)
class Block:
    """Rows of one dataset under one protocol.

    `derived` rows follow from `rows`. `others` are not in the paper's table: they stand apart under the headings of
    their groups, and are never marked best or second.
    """

    dataset: str
    display: str
    protocol: str  # "" where ranking plays no part
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    derived: tuple[Row, ...] = ()
    others: tuple[Row, ...] = ()

    @property
    def heading(self) -> str:
        parts = [self.display, PROTOCOLS.get(self.protocol, self.protocol)]
        return ", ".join(part for part in parts if part)

    @property
    def is_measured(self) -> bool:
        return any(row.is_measured for row in self.rows + self.others)

    @property
    def has_printed(self) -> bool:
        return any(cell.printed for row in self.all_rows for cell in row.cells)

    @property
    def all_rows(self) -> tuple[Row, ...]:
        return self.rows + self.derived + self.others

    @property
    def notes(self) -> dict[str, tuple[str, ...]]:
        """Notes on rows, each once, with the labels of its rows."""
        found: dict[str, list[str]] = {}
        for row in self.all_rows:
            if note := row.note(self.columns):
                found.setdefault(note, []).append(row.label)
        return {note: tuple(labels) for note, labels in found.items()}

    @property
    def groups(self) -> dict[str, tuple[Row, ...]]:
        """The other rows by their headings, without those that nobody has run."""
        tried = [row for row in self.others if row.label not in self.not_run]
        names = dict.fromkeys(row.group for row in tried)
        return {name: tuple(row for row in tried if row.group == name) for name in names}

    @property
    def not_run(self) -> tuple[str, ...]:
        """Labels of other rows that nobody has run; the paper's own rows are shown all the same."""
        return tuple(row.label for row in self.others if all(cell.text == NOT_RUN for cell in row.cells))


@dataclass(frozen=True)
class Table:
    """One table of the paper or of a sweep."""

    slug: str
    title: str
    caption: str
    unit: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_measured(self) -> bool:
        return any(block.is_measured for block in self.blocks)

    @property
    def cells(self) -> list[Cell]:
        return [cell for block in self.blocks for row in block.all_rows for cell in row.cells]

    @property
    def is_averaged(self) -> bool:
        return any(cell.std is not None for cell in self.cells)

    @property
    def is_cut_off(self) -> bool:
        return any(cell.cut_off for cell in self.cells)

    @property
    def is_marked(self) -> bool:
        return any(cell.mark for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in ("slug", "title", "caption", "unit")}
        return values | {"notes": list(self.notes), "blocks": [_block_json(block) for block in self.blocks]}


def _block_json(block: Block) -> dict[str, Any]:
    values = {name: getattr(block, name) for name in ("dataset", "display", "protocol")}
    rows = {
        kind: [
            {name: getattr(row, name) for name in ("label", "method", "group")}
            | {"cells": [as_json(cell) for cell in row.cells]}
            for row in getattr(block, kind)
        ]
        for kind in KINDS_OF_ROWS
    }
    return values | {"columns": list(block.columns)} | rows


def from_json(values: Mapping[str, Any]) -> Table:
    """Rebuild a table from `as_json`."""
    blocks = tuple(
        Block(
            block["dataset"],
            block["display"],
            block["protocol"],
            tuple(block["columns"]),
            *(tuple(_row(row) for row in block[kind]) for kind in KINDS_OF_ROWS),
        )
        for block in values["blocks"]
    )
    texts = (values[name] for name in ("slug", "title", "caption", "unit"))
    return Table(*texts, blocks, tuple(values["notes"]))


def _row(values: Mapping[str, Any]) -> Row:
    cells = [
        Cell(**{k: tuple(v) if isinstance(v, list) else v for k, v in cell.items() if k != "text"})
        for cell in values["cells"]
    ]
    return Row(values["label"], values["method"], tuple(cells), values["group"])
