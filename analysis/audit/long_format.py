"""Read anyone's ranking table from a long CSV file, or say which row to mend and how.

Columns: dataset, metric, model, value; optional std, n, p, claimed_improvement, unit, users. Line numbers are those of
the file, the header being line 1 unless comments ("# ...") precede it. "-" or "NA" declares a cell absent.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from analysis.audit.cells import Cell, Row, columns_of, rows_of, split_metric
from analysis.audit.feasibility import GAINS
from analysis.audit.printed import Printed

REQUIRED = ("dataset", "metric", "model", "value")
OPTIONAL = ("std", "n", "p", "claimed_improvement", "unit", "users")
ABSENT = ("-", "NA", "N/A")
UNITS = {"percent": 1, "fraction": 100}
_NAMES = {"hr": "HR", "hit": "HR", "hits": "HR", "recall": "HR", "ndcg": "NDCG", "mrr": "MRR"}
_METRIC = re.compile(r"([A-Za-z]+)\s*@\s*(\d+)")
_NEAR_METRIC = re.compile(r"(hr|hits?|recall|ndcg|mrr)[^@]*\d+", re.IGNORECASE)
FRACTION_GAP = 30  # a value this far below the rest of its column, and in line with it times 100, is a fraction


@dataclass(frozen=True)
class TableFile:
    """The cells of one file and the numbers of users it states."""

    cells: tuple[Cell, ...]
    users: dict[str, int]


def read_table(path: Path) -> TableFile:
    """Read and validate one file. HR, NDCG and MRR come out in percent.

    Raises ValueError naming the file, the line and the remedy.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text; save it as CSV, UTF-8") from None
    header, rows = _split(path, text)
    cells, users, absent = [], {}, set()
    seen: dict[tuple[str, str, str], int] = {}
    for line, values in rows:
        row = _RowReader(path, line, dict(zip(header, values, strict=True)))
        key = row.key()
        if key in seen:
            raise row.error(f"{' '.join(key)} was given on line {seen[key]} already; keep one of the two")
        seen[key] = line
        row.note_users(users)
        if row.get("value") in ABSENT:
            absent.add(key)
        else:
            cells.append(row.cell(table=path.name))
    _refuse_missing(path, cells, absent)
    _refuse_fractions(path, cells, {line: dict(zip(header, values, strict=True)) for line, values in rows})
    return TableFile(tuple(cells), users)


def _split(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise ValueError(f"{path}: is empty; the first line must be {','.join(REQUIRED)}")
    parsed = [(number, [field.strip() for field in next(csv.reader([line]))]) for number, line in lines]
    number, header = parsed[0]
    for column in header:
        if column not in REQUIRED + OPTIONAL:
            raise ValueError(
                f"{path}, line {number}: column {column!r} is unknown; legal columns are "
                f"{', '.join(REQUIRED + OPTIONAL)}"
            )
    for column in REQUIRED:
        if column not in header:
            raise ValueError(f"{path}, line {number}: column {column!r} is missing; add it to the header")
    if len(set(header)) < len(header):
        raise ValueError(f"{path}, line {number}: a column is named twice; keep one")
    for number, values in parsed[1:]:
        if len(values) != len(header):
            raise ValueError(
                f"{path}, line {number}: has {len(values)} fields where the header has {len(header)}; "
                "write numbers with a point and quote names that hold a comma"
            )
    if len(parsed) == 1:
        raise ValueError(f"{path}: has a header and no rows; add one row per printed number")
    return header, parsed[1:]


@dataclass(frozen=True)
class _RowReader:
    path: Path
    line: int
    fields: dict[str, str]

    def error(self, message: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.line}: {message}")

    def get(self, column: str) -> str:
        return self.fields.get(column, "")

    def key(self) -> tuple[str, str, str]:
        for column in REQUIRED:
            if not self.get(column):
                raise self.error(
                    f"{column} is empty; fill it in, or write '-' as value for a cell that was not printed"
                )
        return self.get("dataset"), self.metric(), self.get("model")

    def metric(self) -> str:
        text = self.get("metric")
        match = _METRIC.fullmatch(text)
        if match and match[1].lower() in _NAMES and int(match[2]) > 0:
            return f"{_NAMES[match[1].lower()]}@{int(match[2])}"
        if _NEAR_METRIC.fullmatch(text):
            raise self.error(f"metric {text!r} is not understood; write it as HR@10, NDCG@10 or MRR@10")
        return text

    def number(self, column: str) -> Printed | None:
        text = self.get(column).removesuffix("%").strip()
        if not text or text in ABSENT:
            return None
        try:
            return Printed.parse(text)
        except ValueError as error:
            raise self.error(f"{column}: {error}") from None

    def count(self, column: str) -> int | None:
        text = self.get(column)
        if not text or text in ABSENT:
            return None
        if not text.isdigit() or int(text) < 1:
            raise self.error(f"{column} {text!r} is not a whole number of 1 or more")
        return int(text)

    def note_users(self, users: dict[str, int]) -> None:
        count, dataset = self.count("users"), self.get("dataset")
        if count is not None and users.setdefault(dataset, count) != count:
            raise self.error(
                f"users {count} for {dataset}, but {users[dataset]} above; a dataset has one number of users"
            )

    def cell(self, table: str) -> Cell:
        metric, value, std = self.metric(), self.number("value"), self.number("std")
        assert value is not None
        unit = self.get("unit") or "percent"
        if unit not in UNITS:
            raise self.error(f"unit {unit!r} is unknown; legal units are {', '.join(UNITS)}")
        if split_metric(metric):
            value, std = value.scaled(UNITS[unit]), std.scaled(UNITS[unit]) if std else None
            if not 0 <= value.value <= 100:
                raise self.error(
                    f"{metric} {value.text} is outside 0 to {100 // UNITS[unit]} {unit}; correct value or unit"
                )
        p = self.number("p")
        if p is not None and not 0 <= p.value <= 1:
            raise self.error(f"p {p.text} is outside 0 to 1")
        if std is not None and std.value < 0:
            raise self.error(f"std {std.text} is negative")
        return Cell(
            table=table,
            dataset=self.get("dataset"),
            metric=metric,
            model=self.get("model"),
            printed=value,
            std=std,
            n=self.count("n"),
            p=p,
            improvement=self.number("claimed_improvement"),
            line=self.line,
        )


def _refuse_missing(path: Path, cells: list[Cell], absent: set[tuple[str, str, str]]) -> None:
    metrics: dict[str, list[str]] = {}
    for cell in cells:
        metrics.setdefault(cell.dataset, [])
        if cell.metric not in metrics[cell.dataset]:
            metrics[cell.dataset].append(cell.metric)
    for (_, dataset, model), row in rows_of(cells).items():
        for metric in metrics[dataset]:
            if metric not in row and (dataset, metric, model) not in absent:
                line = min(cell.line for cell in row.values())
                raise ValueError(
                    f"{path}, line {line}: {model} on {dataset} has no {metric} although other models have; "
                    f"add the row, "
                    "with value '-' if it was not printed"
                )


def _refuse_fractions(path: Path, cells: list[Cell], fields: dict[int, dict[str, str]]) -> None:
    """Catch fractions in a file of percentages: a whole dataset, one row, or one cell."""
    percent = [
        cell for cell in cells if split_metric(cell.metric) and fields[cell.line].get("unit", "") in ("", "percent")
    ]
    for dataset in dict.fromkeys(cell.dataset for cell in percent):
        mine = [cell for cell in percent if cell.dataset == dataset and not fields[cell.line].get("unit")]
        if mine and all(cell.value <= 1 for cell in mine) and any(cell.value > 0 for cell in mine):
            raise _fraction_error(path, mine[0], f"every figure of {dataset} is at most 1")
    columns = columns_of(percent)
    for row in rows_of(percent).values():
        for cell in row.values():
            peers = [c.value for c in columns[cell.table, cell.dataset, cell.metric] if c is not cell]
            if _is_stray_fraction(cell, row, peers):
                raise _fraction_error(path, cell, "the figures around it are percentages")


def _is_stray_fraction(cell: Cell, row: Row, peers: list[float]) -> bool:
    """Far below its column, or below what its row can hold, and in line with either once multiplied by 100."""
    if not 0 < cell.value <= 1:
        return False
    centre = median(peers) if peers else 0.0
    if cell.value * FRACTION_GAP < centre and centre / 5 < 100 * cell.value < 5 * centre:
        return True
    name, k = split_metric(cell.metric) or ("", 0)
    hit_rate = row.get(f"HR@{k}")
    if name == "HR" or hit_rate is None:
        return False
    lowest = GAINS[name](k) * hit_rate.value
    return cell.value * FRACTION_GAP < hit_rate.value and lowest < 100 * cell.value < hit_rate.value


def _fraction_error(path: Path, cell: Cell, reason: str) -> ValueError:
    return ValueError(
        f"{path}, line {cell.line}: {cell.metric} {cell.printed.text} looks like a fraction ({reason}); "
        f"multiply by 100, or "
        "add a column unit with 'fraction' in it, or 'percent' if that is what it is"
    )
