"""Tables as CSV, Markdown, LaTeX and HTML, and as JSON for the report."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

import jinja2

from analysis.measured import CUT_OFF_MEANS, Cell
from analysis.table_latex import as_latex
from analysis.table_model import Block, Row, Table, from_json
from harness.record import write_text_atomically

HERE = Path(__file__).parent / "templates"
FILE = "tables.json"
CSV_COLUMNS = (
    *("table", "dataset", "protocol", "group", "method", "label", "column", "unit", "printed"),
    *("measured", "std", "n", "planned", "cut_off", "state", "note", "mark", "records"),
)


@functools.cache
def environment() -> jinja2.Environment:
    """Return templates that escape every value put into them."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["CUT_OFF_MEANS"] = CUT_OFF_MEANS
    return made


def as_csv(table: Table) -> str:
    """One line per cell, full precision; what is not known is empty. records: paths separated by semicolons."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for block in table.blocks:
        for row in block.all_rows:
            for column, cell in zip(block.columns, row.cells, strict=True):
                place = (table.slug, block.dataset or row.method, block.protocol, group_of(block, row))
                blank = ["" if value is None else repr(value) for value in (cell.value, cell.std)]
                state = "" if cell.value is not None else cell.text
                rest = (cell.n, cell.planned, cell.cut_off, state, cell.note, cell.mark, ";".join(cell.records))
                writer.writerow((*place, row.method, row.label, column, table.unit, cell.printed, *blank, *rest))
    return file.getvalue()


def group_of(block: Block, row: Row) -> str:
    """Say where a row belongs: to the paper's table, to what follows from it, or to a group beside it."""
    return row.group or ("derived" if row in block.derived else "paper")


def as_markdown(table: Table) -> str:
    """One pipe table per block and one per group beside it, the printed figure in brackets."""
    parts = [f"# {_plain(table.title)}", "", _plain(table.caption), ""]
    parts += [f"{_plain(note)}\n" for note in table.notes]
    for block in table.blocks:
        if block.heading:
            parts += [f"## {_plain(block.heading)}", ""]
        if own := block.rows + block.derived:  # none on a dataset of one's own
            parts += _markdown_rows(block, own)
        for group, rows in block.groups.items():
            parts += [f"### {_plain(group)}", "", *_markdown_rows(block, rows)]
        if block.not_run:
            parts += [f"Planned and not run: {', '.join(map(_plain, block.not_run))}.", ""]
    if any(block.has_printed for block in table.blocks):
        parts.append("In brackets: as printed in the paper.")
    if table.is_marked:
        parts.append("Bold: best measured; underlined: second.")
    if table.is_cut_off:
        parts.append(CUT_OFF_MEANS)
    return "\n".join(parts) + "\n"


def pipe_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table of texts that need no escaping, all columns but the first to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_rows(block: Block, rows: Sequence[Row]) -> list[str]:
    has_runs = any(row.runs_text for row in rows)
    names = ["", *block.columns, *(["runs"] if has_runs else [])]
    lines = [f"| {' | '.join(map(_plain, names))} |", f"|{' --- |'}{' ---: |' * (len(names) - 1)}"]
    for row in rows:
        cells = [_plain(row.label), *(_markdown_cell(cell) for cell in row.cells)]
        lines.append(f"| {' | '.join(cells + ([row.runs_text] if has_runs else []))} |")
    return [*lines, "", *_footnotes(block, rows)]


def _markdown_cell(cell: Cell) -> str:
    tags = {"best": ("**", "**"), "second": ("<u>", "</u>")}.get(cell.mark, ("", ""))
    printed = f" ({_plain(cell.printed)})" if cell.printed else ""
    return f"{tags[0]}{_plain(cell.text)}{tags[1]}{printed}"


def _footnotes(block: Block, rows: Sequence[Row]) -> list[str]:
    notes = [f"- {_plain(row.label)}: {_plain(note)}" for row in rows if (note := row.note(block.columns))]
    return [*notes, ""] if notes else []


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_"), ("\n", " ")):
        text = text.replace(raw, safe)
    return text


def as_html(table: Table) -> str:
    """A page of its own, whose figures link to the runs in the report beside the folder."""
    return environment().get_template("table.html.j2").render(table=table)


WRITERS = {"csv": as_csv, "md": as_markdown, "tex": as_latex, "html": as_html}


def write(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table in every format, then tables.json with all of them; return the paths."""
    folder = Path(folder)
    texts = {f"{table.slug}.{kind}": writer(table) for table in tables for kind, writer in WRITERS.items()}
    texts[FILE] = json.dumps([table.as_json() for table in tables], indent=1, allow_nan=False) + "\n"
    for name, text in texts.items():
        write_text_atomically(folder / name, text)
    return [folder / name for name in texts]


def read(folder: Path) -> list[Table]:
    """Read tables.json.  Raises ValueError naming the file if it is missing or damaged."""
    path = Path(folder) / FILE
    try:
        return [from_json(values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; make the tables first with python -m analysis.tables") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not tables of this version ({error}); make them again") from error
