"""The paper's transcribed tables and their facts, read from `paper/` and `claims/` beside this file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from analysis.audit.cells import Cell
from analysis.audit.printed import Printed

HERE = Path(__file__).parent
SUBJECT_COLUMN = {
    "2": "model",
    "3": "variant",
    "4": "energy_function",
    "6": "correction_steps",
    "7": "method",
}
NUM_RUNS = 5  # caption of Table 2


@dataclass(frozen=True)
class DatasetRow:
    """One row of Table 1, or the counts of a released file."""

    dataset: str
    sequences: int
    items: int
    actions: int
    avg_len: Printed | None = None
    sparsity_percent: Printed | None = None
    note: str = ""


@dataclass(frozen=True)
class Paper:
    """All printed tables. `cells` holds Tables 2 to 7; improvements sit on the cell of the method that claims them."""

    statistics: tuple[DatasetRow, ...]
    cells: tuple[Cell, ...]

    def table(self, number: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.table == number]

    @property
    def users(self) -> dict[str, int]:
        return {row.dataset: row.sequences for row in self.statistics}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_facts(name: str) -> list[dict[str, str]]:
    """Read one of the hand-written tables in `claims/`."""
    return read_rows(HERE / "claims" / f"{name}.csv")


def load_paper(folder: Path = HERE / "paper") -> Paper:
    """Read every transcribed table."""
    cells = [cell for number in SUBJECT_COLUMN for cell in _metric_table(folder, number)]
    return Paper(statistics=_statistics(folder / "table1.csv"), cells=tuple(cells + _mmd_table(folder)))


def released_data() -> tuple[DatasetRow, ...]:
    """Counts of the released data files."""
    return tuple(_dataset_row(row) for row in read_facts("released_data"))


def _statistics(path: Path) -> tuple[DatasetRow, ...]:
    return tuple(_dataset_row(row) for row in read_rows(path))


def _dataset_row(row: dict[str, str]) -> DatasetRow:
    return DatasetRow(
        dataset=row["dataset"],
        sequences=int(row["sequences"]),
        items=int(row["items"]),
        actions=int(row["actions"]),
        avg_len=Printed.parse(row["avg_len"]) if "avg_len" in row else None,
        sparsity_percent=Printed.parse(row["sparsity_percent"]) if "sparsity_percent" in row else None,
        note=row.get("note", ""),
    )


def _metric_table(folder: Path, number: str) -> list[Cell]:
    claimed: dict[tuple[str, str], Printed] = {}
    if number == "2":
        for row in read_rows(folder / "table2_improvement.csv"):
            claimed[row["dataset"], row["metric"]] = Printed.parse(row["claimed_improvement_percent"])
    cells = []
    for line, row in enumerate(read_rows(folder / f"table{number}.csv"), start=2):
        subject = row[SUBJECT_COLUMN[number]]
        improvement = claimed.get((row["dataset"], row["metric"])) if subject == "AlignDiff" else None
        cells.append(
            Cell(
                table=number,
                dataset=row["dataset"],
                metric=row["metric"],
                model=subject,
                printed=Printed.parse(row["percent"]),
                improvement=improvement,
                line=line,
            )
        )
    return cells


def _mmd_table(folder: Path) -> list[Cell]:
    """Table 5 prints the method and one rival, which the text names DiffuRec. Units of 1e-3."""
    cells = []
    for line, row in enumerate(read_rows(folder / "table5.csv"), start=2):
        for model, prefix in (("DiffuRec", "sota"), ("AlignDiff", "aligndiff")):
            is_claimant = model == "AlignDiff"
            cells.append(
                Cell(
                    table="5",
                    dataset=row["dataset"],
                    metric="MMD",
                    model=model,
                    printed=Printed.parse(row[f"{prefix}_mean_e-3"]),
                    std=Printed.parse(row[f"{prefix}_std_e-3"]),
                    n=NUM_RUNS,
                    p=Printed.parse(row["p_value"]) if is_claimant else None,
                    improvement=Printed.parse(row["claimed_improvement_percent"]) if is_claimant else None,
                    line=line,
                )
            )
    return cells
