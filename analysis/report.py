"""One self-contained HTML page: verdicts, tables, tests, figures, curves, runs, data, environment, protocol.

    python -m analysis.report --runs results/demo/runs --data results/demo/data --plan results/demo/plan.json \\
        --tables results/demo/tables --figures results/demo/figures --audit results/demo/audit/findings.json \\
        --out results/demo/report.html

`snakemake --report` also works offline, but shows workflow, code and runtimes around a file browser; this is a
page to read from top to bottom, every figure of which links to its runs. The page asks for nothing outside
itself (its policy forbids it), carries no script, and escapes every text that came from a file.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import comparisons, table_formats
from analysis.figures import FILE as FIGURES_FILE
from analysis.glance import glance
from analysis.inventory import duration, list_entries, list_environments
from analysis.load import PROTOCOLS, Runs, load_runs
from analysis.plan import Plan, read_plan
from analysis.table_model import Table
from analysis.table_specs import HEADLINE
from analysis.tables import read_stats
from harness import cli
from harness.record import write_text_atomically

AUDIT_KEYS = ("summary", "findings", "verdicts", "claims")
COMPARISON = re.compile(r"on ([\w.-]+), ([\w.-]+) against ([\w.-]*\w)")  # as `analysis.audit.samples.compare` names it


@dataclass(frozen=True)
class Picture:
    """One figure inside the page."""

    slug: str
    title: str
    caption: str
    section: str
    source: str  # data URI of the SVG


def render(
    runs: Runs,
    plan: Plan,
    *,
    tables: Sequence[Table],
    tests: pd.DataFrame,
    pictures: Sequence[Picture],
    stats: Mapping[str, tuple[str, dict]],
    audit: Mapping[str, Any] | None,
    runs_folder: Path,
    options: Sequence[str],
    made_elsewhere: bool = False,
) -> str:
    """Return the page."""
    entries = list_entries(runs, plan, folder=runs_folder, options=options, made_elsewhere=made_elsewhere)
    status = Counter(entry.status for entry in entries)
    return (
        table_formats.environment()
        .get_template("report.html.j2")
        .render(
            plan=plan,
            tables=tables,
            glance=glance(tables, tests),
            tests=test_groups(tests, plan),
            families=comparisons.FAMILIES,
            pictures={name: [p for p in pictures if p.section == name] for name in ("results", "paper", "curves")},
            entries={name: [entry for entry in entries if entry.dataset == name] for name in _datasets(runs, plan)},
            display={name: plan.datasets.get(name, name) for name in _datasets(runs, plan)},
            status=status,
            num_listed=len(entries),
            num_deviating=sum(bool(entry.deviation) for entry in entries),
            total_time=duration(sum(run.record.train_seconds + run.record.eval_seconds for run in runs.runs)),
            latest=max((run.record.finished for run in runs.runs), default=""),
            environments=list(list_environments(runs)),
            data=data_rows(runs, plan, stats),
            audit=audit and audit_context(audit),
            protocols=PROTOCOLS,
            summaries=summaries(plan),
            mixed=any(run.group for run in runs.runs) or bool(runs.mixed_data),
            metrics=HEADLINE,
            made_elsewhere=made_elsewhere,
            linked_pieces=partial(linked, keys=[entry.key for entry in entries]),
        )
    )


def summaries(plan: Plan) -> list[tuple[str, str, str]]:
    """Return (label, name in files, what it is) of every planned method that says so; a sweep's points do not."""
    labels, swept = plan.labels(), plan.swept()
    cells = {name: cell for name, cell in plan.methods().items() if name not in swept}
    return [(labels[name], name, cell.summary) for name, cell in cells.items() if cell.summary]


def _datasets(runs: Runs, plan: Plan) -> list[str]:
    seen = [run.record.dataset for run in (*runs.runs, *runs.outside)] + [
        problem.key.split("/")[0] for problem in runs.problems
    ]
    return list(dict.fromkeys([*plan.datasets, *seen]))


def linked(text: str, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Cut a sentence so that the methods of a comparison lead to their first runs: (piece, key or nothing)."""
    pieces, end = [], 0
    for match in COMPARISON.finditer(text):
        for number in (2, 3):
            folder = f"{match[1]}/{match[number]}/"
            key = next((key for key in keys if key.startswith(folder)), "")
            pieces += [(text[end : match.start(number)], ""), (match[number], key)]
            end = match.end(number)
    return [*pieces, (text[end:], "")]


def test_groups(tests: pd.DataFrame, plan: Plan) -> list[dict[str, Any]]:
    """Group the comparisons by dataset and metric, missing values as None."""
    if tests.empty:
        return []
    return [
        {
            "display": plan.datasets.get(dataset, dataset),
            "metric": metric,
            "rows": [
                {name: None if pd.isna(value) else value for name, value in row.items()} for _, row in rows.iterrows()
            ],
        }
        for (dataset, metric), rows in tests.groupby(["dataset", "metric"], sort=False)
    ]


def data_rows(runs: Runs, plan: Plan, stats: Mapping[str, tuple[str, dict]]) -> list[dict[str, Any]]:
    """Return per dataset what preprocessing recorded and the digests that its runs saw."""
    return [
        {
            "key": name,
            "display": plan.datasets.get(name, name),
            "path": stats[name][0] if name in stats else "",
            "stats": stats[name][1] if name in stats else {},
            "digests": Counter(run.record.data_sha256 for run in runs.runs if run.record.dataset == name),
        }
        for name in _datasets(runs, plan)
    ]


def audit_context(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what the page shows of an audit: its summary, verdicts on statements, then findings by kind."""
    claims = {claim["id"]: claim for claim in audit["claims"]}
    verdicts = [
        verdict | {"statement": claim.get("statement") or verdict["claim"], "source": claim.get("source", "")}
        for verdict in audit["verdicts"]
        for claim in [claims.get(verdict["claim"], {})]
        if claim.get("statement") or verdict["basis"] == "runs"
    ]
    verdicts.sort(key=lambda verdict: verdict["basis"] != "runs")
    kinds = list(audit["summary"].get("kinds", {}))
    return {
        "lines": audit["summary"]["lines"],
        "kinds": audit["summary"].get("kinds", {}),
        "verdicts": verdicts,
        "thresholds": audit.get("thresholds"),
        "findings": [(kind, [f for f in audit["findings"] if f["kind"] == kind]) for kind in kinds],
    }


def read_audit(path: Path) -> dict[str, Any]:
    """Read findings.json.  Raises ValueError naming the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in AUDIT_KEYS if key not in values]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: not the findings of an audit ({error}); run python -m analysis.audit again"
        ) from error
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; run python -m analysis.audit again")
    return values


def read_pictures(folder: Path) -> list[Picture]:
    """Read figures.json and the SVG files it names, as data URIs.  Raises ValueError naming the file."""
    path = folder / FIGURES_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [Picture(**entry, source=_data_uri(folder / f"{Path(entry['slug']).name}.svg")) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: no list of figures ({error}); run python -m analysis.figures first") from error


def _data_uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def find_options(plan: Plan, given: Sequence[str]) -> Sequence[str]:
    """Return Snakemake's options to rerun a cell with: files given, as planned, or config/{name}.yaml if it exists."""
    guess = f"config/{plan.name}.yaml"
    if given or (not plan.options and Path(guess).is_file()):
        return ["--configfile", *(given or [guess])]
    return plan.options


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True, type=Path, help="folder of runs: {dataset}/{method}/seed{seed}")
    parser.add_argument("--data", required=True, type=Path, help="folder of data: {dataset}/stats.json")
    parser.add_argument("--plan", required=True, type=Path, help="plan.json of the configuration")
    parser.add_argument("--tables", required=True, type=Path, help="what python -m analysis.tables wrote")
    parser.add_argument("--figures", required=True, type=Path, help="what python -m analysis.figures wrote")
    parser.add_argument("--audit", type=Path, help="findings.json of the audit")
    parser.add_argument("--configfile", nargs="+", default=[], help="for the commands that rerun a cell")
    parser.add_argument("--made-elsewhere", action="store_true", help="no command here makes one of the runs again")
    parser.add_argument("--out", required=True, type=Path, help="HTML file to write")
    parser.add_argument("--skip-corrupt", action="store_true", help="list unreadable runs instead of refusing")
    parser.add_argument("--allow-mixed", action="store_true", help="list runs of different digests")
    options = parser.parse_args(argv)
    plan = read_plan(options.plan)
    runs = load_runs(
        options.runs, planned=plan.paths, skip_corrupt=options.skip_corrupt, allow_mixed=options.allow_mixed
    )
    page = render(
        runs,
        plan,
        tables=table_formats.read(options.tables),
        tests=comparisons.read(options.tables),
        pictures=read_pictures(options.figures),
        stats=read_stats(options.data, _datasets(runs, plan)),
        audit=read_audit(options.audit) if options.audit else None,
        runs_folder=options.runs,
        options=find_options(plan, options.configfile),
        made_elsewhere=options.made_elsewhere,
    )
    write_text_atomically(options.out, page)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
