"""Are printed rows identical to rows published or logged earlier?

Two patterns are looked for, digit by digit: at least three figures of one row equal to an earlier row's, and figures
of the same row that differ from it by exact multiples of 0.1 although both are given to four decimals. Either is a
fact about digits; a reader decides what it means. A row taken over from a publication may be a mean of as many runs as
its new caption says, so it is context; a row of one run's log is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from analysis.audit.cells import Cell, Row, rows_of, table_name
from analysis.audit.consistency import is_round_difference
from analysis.audit.finding import Finding, Outcome
from analysis.audit.printed import Printed

MIN_EQUAL = 3
MIN_DECIMALS = 3


@dataclass(frozen=True)
class EarlierRow:
    """Figures of one model on one dataset as printed or logged before the paper, with what is known of the source."""

    source: str
    model: str
    dataset: str
    figures: Mapping[str, Printed]
    kind: str = ""
    how_known: str = ""
    description: str = ""


def earlier_rows(rows: Iterable[dict[str, str]], sources: Iterable[dict[str, str]]) -> list[EarlierRow]:
    """Assemble earlier rows from the two CSV tables of `claims/`."""
    about = {source["source"]: source for source in sources}
    figures: dict[tuple[str, str, str], dict[str, Printed]] = {}
    for row in rows:
        key = row["source"], row["model"], row["dataset"]
        figures.setdefault(key, {})[row["metric"]] = Printed.parse(row["value"])
    return [
        EarlierRow(*key, values, about[key[0]]["kind"], about[key[0]]["how_known"], about[key[0]]["description"])
        for key, values in figures.items()
    ]


@dataclass(frozen=True)
class Match:
    """How a printed row relates to an earlier one: metrics with equal digits, and exact round offsets."""

    row: Row
    earlier: EarlierRow
    equal: tuple[str, ...]
    offsets: Mapping[str, Decimal]

    @property
    def cell(self) -> Cell:
        return next(iter(self.row.values()))


def match(row: Row, earlier: EarlierRow) -> Match:
    """Compare a printed row with an earlier one, digit by digit."""
    shared = [metric for metric in row if metric in earlier.figures]
    differences = {m: row[m].printed.value - earlier.figures[m].value for m in shared}
    equal = tuple(m for m in shared if differences[m] == 0 and row[m].printed.has_decimals(MIN_DECIMALS))
    offsets = {
        m: d for m, d in differences.items() if is_round_difference(d) and row[m].printed.has_decimals(MIN_DECIMALS)
    }
    return Match(row, earlier, equal, offsets)


def check(cells: Iterable[Cell], earlier: Iterable[EarlierRow]) -> Outcome:
    """List printed rows that share three figures or more with an earlier row."""
    cells, earlier = list(cells), list(earlier)
    rows = rows_of(cells)
    matches = [match(row, old) for (_, dataset, _), row in rows.items() for old in earlier if old.dataset == dataset]
    found = [m for m in matches if len(m.equal) >= MIN_EQUAL]
    findings = tuple(_match_finding(m) for m in found)
    return Outcome(
        check="provenance",
        question="Are printed rows identical to earlier publications or logs?",
        checked=len(matches),
        held=len(matches) - sum(finding.is_alarm for finding in findings),
        findings=findings,
        headline=_headline(found),
    )


def _headline(found: list[Match]) -> str:
    """Logs of single runs first; what a publication printed stands apart, being context."""
    published = [m for m in found if m.earlier.kind == "publication"]
    parts = (
        ("Equal to earlier figures digit for digit", [m for m in found if m not in published]),
        ("As context, equal to an earlier publication's", published),
    )
    return " ".join(f"{label}: {', '.join(map(_listed, group))}." for label, group in parts if group)


def _listed(m: Match) -> str:
    which = "all figures" if len(m.equal) == len(m.earlier.figures) else ", ".join(m.equal)
    return f"{m.cell.dataset} {m.cell.model} ({which}; {m.earlier.kind})"


def _match_finding(found: Match) -> Finding:
    cell, earlier = found.cell, found.earlier
    offsets = ", ".join(f"{metric} {value:+.4f}" for metric, value in found.offsets.items())
    extra = f" The others are that source's plus exactly: {offsets}." if offsets else ""
    return Finding(
        id=f"provenance/T{cell.table}/{cell.dataset}/{cell.model}={earlier.source}",
        check="provenance",
        kind="context" if earlier.kind == "publication" else "unsupported",
        claims=("five-runs", *(found.row[metric].id for metric in found.equal)),
        dataset=cell.dataset,
        printed=", ".join(f"{metric} {found.row[metric].printed.text}" for metric in found.equal),
        expected="five runs averaged (caption of Table 2)",
        evidence={
            "model": cell.model,
            "source": earlier.source,
            "source_model": earlier.model,
            "how_known": earlier.how_known,
            "description": earlier.description,
            "equal": list(found.equal),
            "offsets": {metric: float(value) for metric, value in found.offsets.items()},
            "earlier_figures": {metric: printed.text for metric, printed in earlier.figures.items()},
        },
        sentence=f"{table_name(cell)}, {cell.dataset}, {cell.model}: {len(found.equal)} of {len(earlier.figures)} "
        f"figures ({', '.join(found.equal)}) equal those of {earlier.model} in an earlier {earlier.kind}, digit for "
        f"digit.{extra} {earlier.description}",
    )
