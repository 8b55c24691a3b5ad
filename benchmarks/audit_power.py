"""Measure what the audit of ranking tables finds: planted defects and false alarms.

python -m benchmarks.audit_power                 1,000 tables of each kind; writes records/audit_power.json
python -m benchmarks.audit_power --readme        put the recorded table into analysis/audit/README.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.audit import planted
from analysis.audit.finding import KINDS
from analysis.audit.table_audit import table_outcomes
from analysis.markdown import put_between
from harness import cli
from harness.digest import ROOT

RECORD = ROOT / "benchmarks/records/audit_power.json"
README = ROOT / "analysis/audit/README.md"
BEGIN, END = "<!-- audit_power begin -->", "<!-- audit_power end -->"


def measure(num_tables: int, seed: int) -> dict[str, Any]:
    """Audit `num_tables` fake tables of each kind; count tables with an alarm, with and without user counts."""
    rows = {
        name: {"tables": num_tables, "found": 0, "found_with_users": 0, "by_check": {}, "impossible": 0}
        for name in planted.DEFECTS
    }
    for index in range(num_tables):
        simulation = planted.simulate(np.random.default_rng((seed, index)))
        for place, (name, plant) in enumerate(planted.DEFECTS.items()):
            cells = plant(simulation, np.random.default_rng((seed, index, place)))
            _count(rows[name], table_outcomes(cells, planted.USERS))
    return {
        "schema": 1,
        "seed": seed,
        "tables_per_kind": num_tables,
        "datasets": dict(planted.USERS),
        "models": len(planted.MODELS),
        "metrics": list(planted.METRICS),
        "runs": planted.NUM_RUNS,
        "kinds": rows,
    }


def _count(row: dict[str, Any], outcomes: list[Any]) -> None:
    findings = [finding for outcome in outcomes for finding in outcome.findings if finding.is_alarm]
    checks = {finding.check for finding in findings}
    row["found"] += bool(checks - {"whole_counts"})
    row["found_with_users"] += bool(checks)
    row["impossible"] += any(finding.kind == KINDS[0] for finding in findings)
    for check in checks:
        row["by_check"][check] = row["by_check"].get(check, 0) + 1


def markdown(record: dict[str, Any]) -> str:
    """The table of a record: share of tables with at least one objection."""
    lines = [
        "| planted defect | tables | found | found, test users known | found by |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name, row in record["kinds"].items():
        by = sorted(row["by_check"].items(), key=lambda item: -item[1])
        found_by = ", ".join(f"{check} {count}" for check, count in by) or "-"
        shares = " | ".join(f"{100 * row[key] / row['tables']:.1f}%" for key in ("found", "found_with_users"))
        lines.append(f"| {name} | {row['tables']} | {shares} | {found_by} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and record, or put the record into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000, help="tables of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--readme", action="store_true", help="measure nothing; update the README from the record")
    arguments = parser.parse_args(argv)
    if arguments.readme:
        put_between(README, BEGIN, END, markdown(json.loads(arguments.record.read_text(encoding="utf-8"))))
        return 0
    record = measure(arguments.tables, arguments.seed)
    arguments.record.parent.mkdir(parents=True, exist_ok=True)
    arguments.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(markdown(record))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
