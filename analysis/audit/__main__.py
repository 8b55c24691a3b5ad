"""Command line of the audit: `paper` for AlignDiff's tables, `check` for anyone's."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.audit import report
from analysis.audit.long_format import read_table
from analysis.audit.paper_audit import Audit, audit_paper
from analysis.audit.paper_tables import Paper, load_paper
from analysis.audit.table_audit import audit_table
from analysis.plan import Plan, read_plan
from harness import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run one audit. Exit code 0 if it ran, whatever it found, or 2 if its input is unusable."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) or os.environ.get("ALIGNDIFF_TRACEBACK"):
            raise  # cli.run knows both
        print(f"error: {cli.one_line(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.audit", description=__doc__)
    commands = parser.add_subparsers(required=True)
    paper = commands.add_parser("paper", help="audit AlignDiff's printed tables")
    paper.add_argument("--out", type=Path, default=Path("results/audit"), help="folder for findings.{json,md,html}")
    paper.add_argument("--runs", type=Path, help="folder of our runs: judge every claim against them; needs --plan")
    paper.add_argument("--plan", type=Path, help="plan.json that the workflow wrote")
    paper.add_argument("--data", type=Path, help="folder of prepared data, to compare the counts of Table 1")
    paper.add_argument("--mmd", type=Path, help="folder of MMD files, to judge Table 5")
    paper.add_argument(
        "--thresholds",
        nargs="+",
        default=[],
        metavar="NAME=NUMBER",
        help="alpha, margin_percent, least_seeds of verdicts from runs; to be set before the runs",
    )
    paper.add_argument("--skip-corrupt", action="store_true", help="name unreadable runs instead of stopping")
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
    for name in ("plan", "data", "mmd", "thresholds"):
        if getattr(arguments, name) and not arguments.runs:
            raise ValueError(f"--{name} is for an audit against runs: name their folder with --runs")
    if arguments.data and not arguments.data.is_dir():
        raise ValueError(f"--data: {arguments.data} is not a folder; prepare the data or leave the option out")
    audit = _with_runs(arguments) if arguments.runs else audit_paper()
    paths = report.write(audit, arguments.out)
    print("\n".join(report.summary(audit)))
    print(f"Written: {', '.join(map(str, paths))}", file=sys.stderr)
    return 0


def _with_runs(arguments: argparse.Namespace) -> Audit:
    # Here and not above: printed tables alone are audited without pandas and scipy.stats.
    from analysis.audit.judging import Thresholds
    from analysis.audit.reproduction import against_runs
    from analysis.audit.samples import Samples
    from analysis.load import load_runs
    from analysis.mmd_table import read_folder

    if arguments.plan is None:
        raise ValueError("--runs needs --plan: the plan.json that the workflow writes beside the runs")
    thresholds, plan = Thresholds.parse(arguments.thresholds), read_plan(arguments.plan)
    runs = load_runs(arguments.runs, planned=plan.paths, skip_corrupt=arguments.skip_corrupt)
    mmd = read_folder(arguments.mmd, runs) if arguments.mmd else []
    paper = load_paper()
    if why := _judges_nothing(plan, paper):
        audit = audit_paper(paper)
        return replace(audit, title=f"{audit.title}; plan '{plan.name}' {why} and judges nothing")
    return against_runs(audit_paper(paper), paper, Samples(runs, plan, thresholds, mmd), _statistics(arguments.data))


def _judges_nothing(plan: Plan, paper: Paper) -> str:
    """Why no claim of the paper can be judged by the runs of a plan; nothing if claims can."""
    if not plan.verdicts:
        return "is a demonstration"
    theirs = {row.dataset.lower() for row in paper.statistics}
    return "" if theirs & plan.datasets.keys() else "has none of the paper's datasets"


def _statistics(folder: Path | None) -> dict[str, dict]:
    """Read {folder}/{dataset}/stats.json of every prepared dataset.  Raises ValueError naming a damaged file."""
    found = {}
    for path in sorted(folder.glob("*/stats.json")) if folder else ():
        try:
            found[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}); prepare the data again") from error
    return found


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
        print(f"  {outcome.held} of {outcome.checked} as asked: {outcome.question} ({outcome.check})")


if __name__ == "__main__":
    sys.exit(cli.run(main))
