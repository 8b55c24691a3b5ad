"""Print the main table of a finished run to the terminal, and say where the report is.

python -m analysis.summary --tables results/demo/tables --report results/demo/report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis import table_formats
from analysis.measured import CUT_OFF_MEANS, NOT_RUN, Cell
from analysis.table_model import Block
from harness import cli

BOLD, UNDERLINED, OFF = "\x1b[1m", "\x1b[4m", "\x1b[0m"


def lines_of(block: Block, *, colour: bool) -> Iterator[str]:
    """Yield one block as aligned text; best bold and second underlined in a terminal.

    Without colour the best carries an asterisk. A method without a value says why; one that was not run is left out.
    """
    rows = [row for row in block.rows + block.others if row.is_measured]
    failed = [row for row in block.rows + block.others if not row.is_measured and row.cells[0].state != NOT_RUN]
    shown = [[_text(cell, colour) for cell in row.cells] for row in rows]
    widths = [
        max(map(len, [name, *column])) for name, column in zip(block.columns, zip(*shown, strict=True), strict=True)
    ]
    first = max(len(row.label) for row in rows + failed)
    yield "  ".join(["".ljust(first), *(name.rjust(w) for name, w in zip(block.columns, widths, strict=True))])
    for row, texts in zip(rows, shown, strict=True):
        cells = [_styled(t.rjust(w), c, colour) for t, w, c in zip(texts, widths, row.cells, strict=True)]
        notes = list(dict.fromkeys(cell.note for cell in row.cells if cell.note))
        yield "  ".join([row.label.ljust(first), *cells, *(f"({note})" for note in notes)])
    for row in failed:
        yield f"{row.label.ljust(first)}  {row.cells[0].text}"


def _text(cell: Cell, colour: bool) -> str:
    return cell.text if colour else cell.text + ("*" if cell.mark == "best" else " ")


def _styled(text: str, cell: Cell, colour: bool) -> str:
    code = {"best": BOLD, "second": UNDERLINED}.get(cell.mark) if colour else None
    return f"{text[: len(text) - len(text.lstrip())]}{code}{text.lstrip()}{OFF}" if code else text


def summary(folder: Path, report: Path, *, colour: bool = False) -> str:
    """Return the main table's measured blocks under the headline protocol, and the report's place."""
    table = next((table for table in table_formats.read(folder) if table.slug == "table2"), None)
    blocks = [block for block in table.blocks if block.protocol == "kept" and block.is_measured] if table else []
    parts = []
    for block in blocks:
        parts += ["", f"{block.heading}: HR and NDCG in percent, mean ± sample deviation over seeds"]
        parts += [f"  {line}".rstrip() for line in lines_of(block, colour=colour)]
    if not blocks:
        parts.append("No run of the main table has completed yet.")
    elif not colour:
        parts.append("  * best of its column")
    if any(cell.cut_off for block in blocks for row in block.all_rows for cell in row.cells):
        parts.append(f"  {CUT_OFF_MEANS}")
    place = report.resolve() if report.is_file() else None
    parts += ["", f"Tables: {folder}", f"Report: {place}" if place else f"Report: not there yet ({report})"]
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.summary", description=__doc__.splitlines()[0])
    parser.add_argument("--tables", required=True, type=Path, help="what python -m analysis.tables wrote")
    parser.add_argument("--report", required=True, type=Path, help="the HTML report")
    options = parser.parse_args(argv)
    print(summary(options.tables, options.report, colour=sys.stdout.isatty()))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
