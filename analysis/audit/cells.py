"""Printed cells: one number of one table, and ways to arrange them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.audit.printed import Interval, Printed

_CUTOFF = re.compile(r"(HR|NDCG|MRR)@([1-9]\d*)")
LOWER_IS_BETTER = frozenset({"MMD", "MAE", "MSE", "RMSE"})


@dataclass(frozen=True)
class Cell:
    """One printed number. HR, NDCG and MRR in percent, everything else in its own unit.

    n: runs the number is a mean of; std: their printed standard deviation; p, improvement: as printed beside it;
    line: the line of the file it came from.
    """

    table: str
    dataset: str
    metric: str
    model: str
    printed: Printed
    std: Printed | None = None
    n: int | None = None
    p: Printed | None = None
    improvement: Printed | None = None
    line: int = 0

    @property
    def id(self) -> str:
        return f"T{self.table}/{self.dataset}/{self.metric}/{self.model}"

    @property
    def interval(self) -> Interval:
        return self.printed.interval

    @property
    def value(self) -> float:
        return float(self.printed)


Row = dict[str, Cell]  # metric -> cell, for one model on one dataset of one table


def rows_of(cells: Iterable[Cell]) -> dict[tuple[str, str, str], Row]:
    """Group cells into rows, by table, dataset and model."""
    rows: dict[tuple[str, str, str], Row] = defaultdict(dict)
    for cell in cells:
        rows[cell.table, cell.dataset, cell.model][cell.metric] = cell
    return dict(rows)


def columns_of(cells: Iterable[Cell]) -> dict[tuple[str, str, str], list[Cell]]:
    """Group cells into columns, by table, dataset and metric."""
    columns: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        columns[cell.table, cell.dataset, cell.metric].append(cell)
    return dict(columns)


def split_metric(metric: str) -> tuple[str, int] | None:
    """Return ("HR", 10) for "HR@10"; None for a metric without a cut-off the audit knows."""
    match = _CUTOFF.fullmatch(metric)
    return (match[1], int(match[2])) if match else None


def lower_is_better(metric: str) -> bool:
    return metric.upper() in LOWER_IS_BETTER


def is_better(cell: Cell, than: Cell) -> bool:
    return cell.value < than.value if lower_is_better(cell.metric) else cell.value > than.value


def best_of(cells: Iterable[Cell]) -> Cell:
    """Return the best cell of one column."""
    cells = list(cells)
    pick = min if lower_is_better(cells[0].metric) else max
    return pick(cells, key=lambda cell: cell.value)


def table_name(cell: Cell) -> str:
    """The table as a reader would say it: "Table 2", or the file name it came from."""
    return f"Table {cell.table}" if cell.table.isdigit() else cell.table
