"""A table as plain data, between building and writing: blocks of rows of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.load import PROTOCOLS
from analysis.measured import Cell, as_json


@dataclass(frozen=True)
class Row:
    """One method (or dataset, in Table 1). `method` names mixed runs with their digests in brackets."""

    label: str
    method: str
    cells: tuple[Cell, ...]

    @property
    def base(self) -> str:
        return self.method.partition(" [")[0]

    @property
    def is_measured(self) -> bool:
        return any(cell.value is not None for cell in self.cells)


@dataclass(frozen=True)
class Block:
    """Rows of one dataset under one protocol; `derived` rows follow from the others."""

    dataset: str
    display: str
    protocol: str  # "" where ranking plays no part
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    derived: tuple[Row, ...] = ()

    @property
    def heading(self) -> str:
        parts = [self.display, PROTOCOLS.get(self.protocol, self.protocol)]
        return ", ".join(part for part in parts if part)

    @property
    def is_measured(self) -> bool:
        return any(row.is_measured for row in self.rows)

    @property
    def has_printed(self) -> bool:
        return any(cell.printed for row in self.all_rows for cell in row.cells)

    @property
    def all_rows(self) -> tuple[Row, ...]:
        return self.rows + self.derived


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

    def as_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in ("slug", "title", "caption", "unit")}
        return values | {"notes": list(self.notes), "blocks": [_block_json(block) for block in self.blocks]}


def _block_json(block: Block) -> dict[str, Any]:
    values = {name: getattr(block, name) for name in ("dataset", "display", "protocol")}
    rows = {
        kind: [
            {"label": row.label, "method": row.method, "cells": [as_json(cell) for cell in row.cells]}
            for row in getattr(block, kind)
        ]
        for kind in ("rows", "derived")
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
            *(tuple(_row(row) for row in block[kind]) for kind in ("rows", "derived")),
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
    return Row(values["label"], values["method"], tuple(cells))
