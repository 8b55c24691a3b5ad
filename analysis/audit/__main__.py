"""Command line of the audit: `paper` for AlignDiff's tables, `check` for anyone's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.audit import report
from analysis.audit.long_format import read_table
from analysis.audit.paper_audit import Audit, audit_paper
from analysis.audit.table_audit import audit_table


def main(argv: Sequence[str] | None = None) -> int:
    """Run one audit. Exit code 0 if it ran, whatever it found, or 2 if its input is unusable."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.audit", description=__doc__)
    commands = parser.add_subparsers(required=True)
    paper = commands.add_parser("paper", help="audit AlignDiff's printed tables")
    paper.add_argument("--out", type=Path, default=Path("results/audit"), help="folder for findings.{json,md,html}")
    paper.set_defaults(command=_paper)
    check = commands.add_parser("check", help="audit a table in long CSV format")
    check.add_argument("file", type=Path, help="CSV with columns dataset,metric,model,value and optional ones")
    check.add_argument(
        "--users", nargs="+", default=[], metavar="DATASET=N", help="test users, for the whole-count test"
    )
    check.add_argument("--runs", type=int, default=1, help="runs behind each cell without an n of its own")
    check.add_argument("--out", type=Path, help="folder for findings.{json,md,html}")
    check.add_argument("--strict", action="store_true", help="exit 1 if anything is objected to")
    check.set_defaults(command=_check)
    return parser


def _paper(arguments: argparse.Namespace) -> int:
    audit = audit_paper()
    paths = report.write(audit, arguments.out)
    print("\n".join(report.summary(audit)))
    print(f"Written: {', '.join(map(str, paths))}", file=sys.stderr)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    if arguments.runs < 1:
        raise ValueError(f"--runs {arguments.runs}: must be 1 or more")
    table = read_table(arguments.file)
    users = table.users | _users(arguments.users, {cell.dataset for cell in table.cells})
    audit = audit_table(arguments.file.name, table.cells, users=users, num_runs=arguments.runs)
    _print(audit)
    if arguments.out:
        report.write(audit, arguments.out)
    return int(arguments.strict and any(finding.is_alarm for finding in audit.findings))


def _users(pairs: Sequence[str], datasets: set[str]) -> dict[str, int]:
    """Read "beauty=22363"; the case of the dataset does not matter."""
    users = {}
    for pair in pairs:
        name, _, count = pair.partition("=")
        if not count.isdigit() or int(count) < 1:
            raise ValueError(f"--users {pair!r}: write DATASET=N with a whole number, such as Beauty=22363")
        match = [dataset for dataset in datasets if dataset.lower() == name.lower()]
        users[match[0] if match else name] = int(count)
    return users


def _print(audit: Audit) -> None:
    for finding in audit.findings:
        print(f"[{finding.kind}] {finding.sentence}")
    alarms = sum(finding.is_alarm for finding in audit.findings)
    print(f"{alarms} objections." if alarms != 1 else "1 objection.")
    for outcome in audit.outcomes:
        print(f"  {outcome.check}: {outcome.held} of {outcome.checked} without objection")


if __name__ == "__main__":
    sys.exit(main())
