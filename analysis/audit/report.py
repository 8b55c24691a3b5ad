"""Write an audit as JSON, Markdown and one HTML page, and say it in ten lines."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from analysis.audit.claims import Claim
from analysis.audit.finding import ALARMS, KINDS, STATUSES, Counterpart, Finding, Outcome, Verdict
from analysis.audit.paper_audit import Audit
from analysis.audit.released_code import STOPS

SCHEMA_VERSION = 1
HERE = Path(__file__).parent
SUMMARY_LINES = 10
# The checks a reader should meet first; the rest follow in the order in which they ran.
SHOWN_FIRST = (
    "feasibility",
    "p_values",
    "repeated_cells",
    "provenance",
    "dataset_statistics",
    "improvements",
    "settings",
    "equations",
    "released_code",
)
BASES = {"tables": "Claims, on the printed tables alone", "runs": "Claims, against our runs"}
# Statements and questions in the order in which a reader asks; the others follow.
ASKED_FIRST = (
    "best-overall",
    "significant-all",
    "question/tuned",
    "question/both-tuned",
    "question/no-diffusion",
    "question/tuned-no-diffusion",
    "energy-needed",
    "guidance-needed",
    "mmd-lower",
)
RUN_LINES = 4  # of the summary
CAVEAT = (
    "Facts about numbers, not about how they came about: a best epoch picked for each metric, a figure taken from "
    "another paper and a typing error can look alike."
)
BESIDE_COLUMNS = ("claim", "method", "printed", "measured", "difference", "inside", "runs", "verdict")
VERDICT_COLUMNS = ("claim", "source", "verdict", "because")
EXPLAINED: dict[str, str] = {
    "impossible": "no ranking of one target per user can give these figures",
    "error in arithmetic": "a derived figure does not follow from the figures it is derived from",
    "inconsistent": "two statements of the same source disagree",
    "unsupported": "what is printed does not bear the claim out; of released code, a place where it stops",
    "context": "figures from elsewhere that a reader should have beside the table",
    "holds": "checked and in order",
}


def as_json(audit: Audit) -> dict[str, Any]:
    """Everything as JSON values; `findings.schema.json` beside this file describes it."""
    document = {
        "schema": SCHEMA_VERSION,
        "title": audit.title,
        "summary": {
            "lines": summary(audit),
            "kinds": {kind: audit.count(kind) for kind in KINDS},
            "checked": sum(outcome.checked for outcome in audit.outcomes),
            "held": sum(outcome.held for outcome in audit.outcomes),
        },
        "checks": [outcome.as_dict() for outcome in audit.outcomes],
        "findings": [finding.as_dict() for finding in audit.findings],
        "verdicts": [verdict.as_dict() for verdict in audit.verdicts],
        "claims": [claim.as_dict() for claim in audit.claims],
    }
    if audit.thresholds is not None:
        document["thresholds"] = dict(audit.thresholds)
        document["counterparts"] = [beside.as_dict() for beside in audit.counterparts]
    return document


def summary(audit: Audit) -> list[str]:
    """Ten lines at most: what runs say, counts, the checks that found most weight, and what held."""
    from_runs = _run_lines(audit)
    alarms = [outcome for outcome in audit.outcomes if _alarms(outcome)]
    alarms.sort(key=lambda o: SHOWN_FIRST.index(o.check) if o.check in SHOWN_FIRST else len(SHOWN_FIRST))
    room = SUMMARY_LINES - 2 - len(from_runs)
    shown, hidden = alarms[:room], alarms[room:]
    clean = [o for o in audit.outcomes if o.checked and o.held == o.checked]
    tail = [
        f"{label}: {', '.join(f'{_name(o)} ({o.held} of {o.checked})' for o in outcomes)}."
        for label, outcomes in (("Also with objections, how many hold", hidden), ("Without objection", clean))
        if outcomes
    ]
    last = [" ".join(tail)] if tail else []
    return [*from_runs, _counts_line(audit), *(_summary_line(outcome) for outcome in shown), *last]


def _counts_line(audit: Audit) -> str:
    objections = [finding for finding in audit.findings if finding.is_alarm]
    of_code = sum("released-code" in f.claims or f.check == "released_data" for f in objections)
    counts = ", ".join(f"{audit.count(kind)} {kind}" for kind in KINDS if kind in ALARMS and audit.count(kind))
    said = f"{len(objections)} objections: {counts}" if objections else "no objections"
    stops = sum(finding.evidence.get("effect") == STOPS for finding in objections)
    whose = (
        f"; {len(objections) - of_code} are to what is printed, {of_code} to the released code and data, "
        f"{stops} of these places where the code stops"
    )
    return f"{audit.title}: {said}{whose if of_code else ''}."


def _run_lines(audit: Audit) -> list[str]:
    """Say what runs decided: the claims asked about first, then counts; only counts where nothing is decided."""
    stated = {claim.id: claim.statement for claim in audit.claims if claim.statement}
    asked = {claim.id for claim in audit.claims if claim.kind == "question"}
    verdicts = [verdict for verdict in audit.verdicts if verdict.basis == "runs" and verdict.claim in stated]
    if not verdicts:
        return []
    decided = [verdict for verdict in verdicts if verdict.status != "undecided"]
    decided.sort(key=lambda v: ASKED_FIRST.index(v.claim) if v.claim in ASKED_FIRST else len(ASKED_FIRST))
    lines = [f"{v.status.capitalize()} in our runs: {stated[v.claim]} {v.because}" for v in decided[: RUN_LINES - 1]]
    ours = _statuses([v for v in verdicts if v.claim in asked])
    theirs = _statuses([v for v in verdicts if v.claim not in asked])
    counted = "; ".join(
        f"{whose}: {counts}"
        for whose, counts in (("the paper's statements", theirs), ("our questions", ours))
        if counts
    )
    inside = _inside([beside for beside in audit.counterparts if beside.inside is not None])
    if not decided:
        counted = f"{counted}, because runs that they need are missing"
    return [*lines, f"Against our runs: {counted}.{inside}"]


def _statuses(verdicts: list[Verdict]) -> str:
    numbers = {status: sum(verdict.status == status for verdict in verdicts) for status in STATUSES}
    return ", ".join(f"{number} {status}" for status, number in numbers.items() if number)


def _inside(figures: list[Counterpart]) -> str:
    """How many printed cells our intervals hold, and how much that says: two seeds hold nearly everything."""
    figures = [b for b in figures if not b.claim.startswith("improvement/")]  # percent of a baseline, not points
    if not figures:
        return ""
    known = [(b.runs, (b.interval[1] - b.interval[0]) / 2) for b in figures if b.interval]
    seeds = min(runs for runs, _ in known)
    reach = max(half for runs, half in known if runs == seeds)
    held = f"{sum(bool(b.inside) for b in figures)} of {len(figures)} printed figures lie in an interval of our runs"
    width = f"over {seeds} seeds such an interval reaches up to ±{reach:.2f} points, so lying in it may say little"
    outside = _outside([b for b in figures if not b.inside])
    return f"{outside} {held}; {width}."


def _outside(cells: list[Counterpart]) -> str:
    """Whose printed cells lie outside our intervals, and on which side of them ours are."""
    sides = []
    for side, sign in (("above", 1), ("below", -1)):
        count = Counter(_model_and_dataset(b.claim) for b in cells if b.difference * sign > 0)
        if count:
            rows = ", ".join(f"{model} on {dataset} ({number})" for (model, dataset), number in count.items())
            sides.append(f"ours {side}: {rows}")
    said = f"{len(cells)} printed figures lie outside the intervals of our runs"
    return f" {said}; {'; '.join(sides)}." if sides else ""


def _model_and_dataset(cell: str) -> tuple[str, str]:
    table, dataset, _, model = cell.split("/", 3)  # a model may be called "w/o ML"
    number = table.removeprefix("T")
    return (model if number == "2" else f"{model} (Table {number})"), dataset


def _alarms(outcome: Outcome) -> list[Finding]:
    return [finding for finding in outcome.findings if finding.kind in ALARMS]


def _summary_line(outcome: Outcome) -> str:
    worst = min(_alarms(outcome), key=lambda finding: KINDS.index(finding.kind))
    said = outcome.headline or f"{worst.sentence} ({outcome.held} of {outcome.checked} hold.)"
    name = _name(outcome)
    return f"{name[:1].upper()}{name[1:]}: {said}"


def _name(outcome: Outcome) -> str:
    """A check's name as words."""
    return outcome.check.replace("_", " ")


def as_markdown(audit: Audit) -> str:
    """The same, to be read in a terminal or on a code host."""
    parts = [f"# Audit: {_plain(audit.title)}", "", CAVEAT, "", *(f"- {_plain(line)}" for line in summary(audit)), ""]
    for kind, group in groupby(audit.findings, key=lambda finding: finding.kind):
        parts += [f"## {kind.capitalize()}", "", f"{EXPLAINED[kind].capitalize()}.", ""]
        parts += [as_line(finding) for finding in group]
        parts.append("")
    parts += [
        "## What was checked",
        "",
        "| check | question | checked | as asked |",
        "| --- | --- | ---: | ---: |",
    ]
    parts += [f"| {o.check} | {_plain(o.question)} | {o.checked} | {o.held} |" for o in audit.outcomes]
    if audit.thresholds is not None:
        parts += ["", f"Thresholds, fixed before the runs: {_thresholds(audit)}."]
    for heading, rows in _statement_verdicts(audit):
        parts += ["", f"## {heading}", "", f"| {' | '.join(VERDICT_COLUMNS)} |", "| --- " * len(VERDICT_COLUMNS) + "|"]
        parts += [f"| {' | '.join(_plain(row[column]) for column in VERDICT_COLUMNS)} |" for row in rows]
    if audit.counterparts:
        parts += ["", "## Printed against measured", "", _not_measured(audit)]
        if besides := _besides(audit):
            parts += ["", f"| {' | '.join(BESIDE_COLUMNS)} |", "| --- " * len(BESIDE_COLUMNS) + "|"]
            parts += [f"| {' | '.join(map(_plain, row))} |" for row in besides]
    return "\n".join(parts) + "\n"


def as_line(finding: Finding) -> str:
    """One finding as an item of a Markdown list."""
    return f"- {_plain(finding.sentence)} <sub>`{finding.id}`</sub>"


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup in a table cell or HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _statement_verdicts(audit: Audit) -> list[tuple[str, list[dict[str, str]]]]:
    """Verdicts on claims that are sentences, under one heading for each basis that has any."""
    claims = {claim.id: claim for claim in audit.claims if claim.statement}
    groups = []
    for basis, heading in BASES.items():
        rows = [
            _verdict_row(claims[verdict.claim], verdict)
            for verdict in audit.verdicts
            if verdict.basis == basis and verdict.claim in claims
        ]
        if rows:
            groups.append((heading, rows))
    return groups


def _verdict_row(claim: Claim, verdict: Verdict) -> dict[str, str]:
    numbers = []
    if verdict.estimate is not None:
        numbers.append(f"estimate {verdict.estimate:.4g}")
    if verdict.interval is not None:
        numbers.append(f"interval [{verdict.interval[0]:.4g}, {verdict.interval[1]:.4g}]")
    if verdict.p is not None:
        numbers.append(f"corrected p {verdict.p:.2g}")
    if verdict.runs is not None:
        numbers.append(f"{verdict.runs} runs")
    if verdict.family:
        numbers.append(f"corrected over {verdict.family}")
    if verdict.rule:
        numbers.append(f"rule: {verdict.rule}")
    because = verdict.because + (f" ({', '.join(numbers)})" if numbers else "")
    return {"claim": claim.statement, "source": claim.source, "verdict": verdict.status, "because": because}


def _thresholds(audit: Audit) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in (audit.thresholds or {}).items())


def _besides(audit: Audit) -> list[list[str]]:
    """Rows of the table of printed against measured, as text; of figures that were measured."""
    return [
        [
            beside.claim,
            beside.method,
            beside.printed,
            "-" if beside.measured is None else f"{beside.measured:.4f}" + _spread(beside.interval),
            "-" if beside.difference is None else f"{beside.difference:+.4f}",
            {None: "-", True: "yes", False: "no"}[beside.inside],
            str(beside.runs or "-"),
            beside.status + (f" ({beside.state})" if beside.state else ""),
        ]
        for beside in audit.counterparts
        if beside.measured is not None
    ]


def _not_measured(audit: Audit) -> str:
    absent = sum(beside.measured is None for beside in audit.counterparts)
    return (
        f"{absent} of {len(audit.counterparts)} printed figures have no measured one; findings.json says why for each."
    )


def _spread(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"


def as_html(audit: Audit) -> str:
    """One self-contained page; every text from a file is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    groups = [
        (kind, EXPLAINED[kind], [_for_page(finding) for finding in group])
        for kind, group in groupby(audit.findings, key=lambda finding: finding.kind)
    ]
    return environment.get_template("page.html.j2").render(
        title=audit.title,
        caveat=CAVEAT,
        summary=summary(audit),
        counts=[(kind, audit.count(kind)) for kind in KINDS],
        groups=groups,
        outcomes=audit.outcomes,
        verdicts=_statement_verdicts(audit),
        thresholds=_thresholds(audit),
        beside_columns=BESIDE_COLUMNS,
        besides=_besides(audit),
        not_measured=_not_measured(audit) if audit.counterparts else "",
    )


def _for_page(finding: Finding) -> dict[str, Any]:
    evidence = json.dumps(finding.evidence, indent=1, ensure_ascii=False)
    return {"finding": finding, "evidence": evidence}


def write(audit: Audit, folder: Path) -> list[Path]:
    """Write findings.json, findings.md and findings.html into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "findings.json": json.dumps(as_json(audit), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "findings.md": as_markdown(audit),
        "findings.html": as_html(audit),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]
