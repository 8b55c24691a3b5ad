"""Tables 1 to 7 and the numbers of Figure 3: printed and measured side by side, each cell with its records.

    python -m analysis.tables --runs results/demo/runs --data results/demo/data --plan results/demo/plan.json \\
        --out results/demo/tables

Writes per table a CSV, Markdown, LaTeX and HTML file, `tables.json` with all of them for the report, and
`comparisons.csv` with the tests of AlignDiff against each rival.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis import comparisons, mmd_table, table_formats
from analysis.audit.paper_tables import Paper, load_paper
from analysis.load import PROTOCOLS, load_runs
from analysis.measured import NOT_RUN, Cell, Measurements, behind, marked
from analysis.plan import Plan, read_plan
from analysis.table_model import Block, Row, Table
from analysis.table_specs import (
    CLAIMANT,
    TABLES,
    TUNED,
    TableSpec,
    datasets_under,
    printed_cells,
    subjects_under,
    sweep_spec,
    twins,
)
from harness import cli

STATISTICS = {
    "sequences": ("Sequences", "users", 0),
    "items": ("Items", "items", 0),
    "actions": ("Actions", "actions", 0),
    "avg_len": ("Avg. length", "avg_len", 2),
    "sparsity_percent": ("Sparsity %", "sparsity_percent", 2),
}


def build_tables(
    measured: Measurements, *, paper: Paper, stats: Mapping[str, tuple[str, dict]], mmd: Sequence[mmd_table.MMDRun] = ()
) -> list[Table]:
    """Return the tables in the paper's order; one to which nothing printed or planned belongs is left out.

    stats: path and content of each dataset's stats.json, for those that exist.
    """
    specs = {spec.slug: metric_table(spec, measured, paper) for spec in TABLES}
    first, fifth = statistics_table(stats, paper, measured.plan), mmd_table.build(mmd, paper, measured.plan)
    tables = [first, *(specs[name] for name in ("table2", "table3", "table4")), fifth]
    tables += [mmd_table.build_runs(mmd, measured.plan)] if mmd else []
    tables += [specs["table6"], specs["table7"]]
    tables += [metric_table(sweep_spec(sweep), measured, paper) for sweep in measured.plan.sweeps]
    return [table for table in tables if table.blocks]


def metric_table(spec: TableSpec, measured: Measurements, paper: Paper) -> Table:
    """Build one table of metrics: a block per dataset and protocol."""
    plan, printed = measured.plan, printed_cells(paper, spec.slug)
    metrics = spec.metrics_under(plan)
    blocks = [
        _block(spec, measured, printed, dataset=dataset, display=display, protocol=protocol, metrics=metrics)
        for protocol in PROTOCOLS
        for dataset, display in datasets_under(printed, paper, plan).items()
        if _has_rows(spec, plan, dataset) or any(key[0] == dataset for key in printed)
    ]
    notes = [
        f"The runs on {block.display} saw different data, so best and second are not marked."
        for block in blocks
        if block.dataset in measured.runs.mixed_data and block.protocol == "kept"
    ]
    return Table(spec.slug, spec.title, spec.caption, "percent", tuple(blocks), tuple(notes))


def _has_rows(spec: TableSpec, plan: Plan, dataset: str) -> bool:
    """AlignDiff alone, tuned or not, makes no table of variants."""
    others = {subject.method for subject in (*spec.subjects, *twins(spec))} - {CLAIMANT, TUNED}
    return spec.takes_others or any(plan.seeds(dataset, method) for method in others)


def _block(spec, measured: Measurements, printed, *, dataset, display, protocol, metrics) -> Block:
    rows, others = [], []
    for subject in subjects_under(spec, measured.plan, dataset):
        beside = [_text(printed.get((dataset, subject.printed, metric))) for metric in metrics]
        for name in measured.runs.methods_of(dataset, subject.method):
            cells = [
                measured.cell(dataset, name, protocol, metric, text)
                for metric, text in zip(metrics, beside, strict=True)
            ]
            row = Row(subject.display + name.removeprefix(subject.method), name, tuple(cells), subject.group)
            # What is neither printed nor planned here, such as Table 2's rows on a dataset of one's own, is no row.
            if any(cell.printed or cell.planned for cell in cells):
                (others if subject.group else rows).append(row)
    is_mixed = dataset in measured.runs.mixed_data
    rows = rows if is_mixed else _marked_rows(rows)
    has_gain = spec.has_improvement and any(row.base == CLAIMANT for row in rows)
    claimed = [printed.get((dataset, "AlignDiff", metric)) for metric in metrics]
    derived = (_improvement(rows, claimed, len(spec.subjects) - 1, is_mixed=is_mixed),) if has_gain else ()
    return Block(dataset, display, protocol, metrics, tuple(rows), derived, tuple(others))


def _marked_rows(rows: list[Row]) -> list[Row]:
    columns = [marked(column) for column in zip(*(row.cells for row in rows), strict=True)]
    return [replace(row, cells=cells) for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]


def _improvement(rows: Sequence[Row], claimed: Sequence, num_rivals: int, *, is_mixed: bool) -> Row:
    """Relative improvement of AlignDiff's mean over the best mean of the paper's baselines, the printed one beside it.

    Floors, tuned baselines and controls are no rows of the paper's and take no part.
    """
    own = [row for row in rows if row.base == CLAIMANT]
    ours = own[0] if len(own) == 1 else None
    rivals = [row for row in rows if row.base != CLAIMANT]
    cells = []
    for i, printed in enumerate(claimed):
        text = printed.improvement.text if printed and printed.improvement else ""
        known = [row for row in rivals if row.cells[i].value]
        if is_mixed or ours is None or ours.cells[i].value is None or not known:
            mixed = "runs saw different data" if is_mixed else "runs are mixed" if len(own) > 1 else NOT_RUN
            cells.append(Cell(text, state=mixed))
            continue
        cell, best = ours.cells[i], max(known, key=lambda row: row.cells[i].value)
        rival = best.cells[i]
        few = f", the best of {len(known)} measured of {num_rivals}" if len(known) < num_rivals else ""
        cells.append(
            Cell(
                text,
                value=100 * (cell.value - rival.value) / rival.value,
                note=f"against {best.label}{few}",
                decimals=1,
                **behind(cell, rival),
            )
        )
    return Row("AlignDiff over the best baseline, %", "", tuple(cells))


def _text(cell) -> str:
    return cell.printed.text if cell else ""


def statistics_table(stats: Mapping[str, tuple[str, dict]], paper: Paper, plan: Plan) -> Table:
    """Build Table 1 from what preprocessing counted."""
    printed = {row.dataset.lower(): row for row in paper.statistics}
    rows = []
    for dataset, display in datasets_under([(key,) for key in printed], paper, plan).items():
        cells = []
        for field, (_, key, decimals) in STATISTICS.items():
            beside = getattr(printed.get(dataset), field, None)
            text = "" if beside is None else str(getattr(beside, "text", beside))
            if dataset not in stats:
                cells.append(Cell(text, state="not processed"))
                continue
            path, values = stats[dataset]
            cells.append(
                Cell(text, value=float(values[key]), n=1, decimals=decimals, records=(path,), runs=(f"data/{dataset}",))
            )
        rows.append(Row(display, dataset, tuple(cells)))
    columns = tuple(title for title, _, _ in STATISTICS.values())
    return Table(
        "table1", "Table 1. Datasets", "Counts after preprocessing.", "", (Block("", "", "", columns, tuple(rows)),)
    )


def read_stats(folder: Path, datasets: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read {folder}/{dataset}/stats.json where it exists."""
    found = {}
    for dataset in datasets:
        path = folder / dataset / "stats.json"
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            missing = [key for _, key, _ in STATISTICS.values() if key not in values]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: not the statistics of a dataset ({error}); delete it and run again") from error
        if missing:
            raise ValueError(f"{path}: lacks {', '.join(missing)}; delete it and run again")
        found[dataset] = (str(path), values)
    return found


def _warnings(measured: Measurements) -> Iterator[str]:
    for problem in measured.runs.problems:
        yield f"left out: {problem.message}"
    planned = measured.plan.paths
    missing = planned - {run.key for run in measured.runs.runs} - {p.key for p in measured.runs.problems}
    if missing:
        yield f"{len(missing)} of {len(planned)} planned runs are not there, e.g. {sorted(missing)[0]}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True, type=Path, help="folder of runs: {dataset}/{method}/seed{seed}")
    parser.add_argument("--data", required=True, type=Path, help="folder of data: {dataset}/stats.json")
    parser.add_argument("--plan", required=True, type=Path, help="plan.json of the configuration")
    parser.add_argument("--mmd", type=Path, help="folder of MMD files: {dataset}/{method}/seed{seed}.json")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default %(default)s)")
    parser.add_argument("--skip-corrupt", action="store_true", help="leave unreadable runs out and say so")
    parser.add_argument("--allow-mixed", action="store_true", help="runs of different digests as separate rows")
    options = parser.parse_args(argv)
    plan = read_plan(options.plan)
    runs = load_runs(
        options.runs, planned=plan.paths, skip_corrupt=options.skip_corrupt, allow_mixed=options.allow_mixed
    )
    measured = Measurements(runs, plan)
    mmd = mmd_table.read_folder(options.mmd, runs) if options.mmd else []
    tables = build_tables(measured, paper=load_paper(), stats=read_stats(options.data, list(plan.datasets)), mmd=mmd)
    table_formats.write(tables, options.out)
    comparisons.write(comparisons.compare_runs(runs, plan, resamples=options.resamples), options.out)
    for line in _warnings(measured):
        print(f"warning: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
