"""Write an audit as JSON, Markdown and one HTML page, and say it in ten lines."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from analysis.audit.finding import ALARMS, KINDS, Finding, Outcome
from analysis.audit.paper_audit import Audit

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
EXPLAINED: dict[str, str] = {
    "impossible": "no ranking, or no test on the stated runs, can give these figures",
    "error in arithmetic": "a derived figure does not follow from the figures it is derived from",
    "inconsistent": "two statements of the same source disagree",
    "unsupported": "what is printed does not bear the claim out",
    "context": "figures from elsewhere that a reader should have beside the table",
    "holds": "checked and in order",
}


def as_json(audit: Audit) -> dict[str, Any]:
    """Everything as JSON values; `findings.schema.json` beside this file describes it."""
    return {
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


def summary(audit: Audit) -> list[str]:
    """Ten lines at most: counts, the checks that found most weight, and what held."""
    alarms = [outcome for outcome in audit.outcomes if _alarms(outcome)]
    alarms.sort(key=lambda o: SHOWN_FIRST.index(o.check) if o.check in SHOWN_FIRST else len(SHOWN_FIRST))
    counts = ", ".join(f"{audit.count(kind)} {kind}" for kind in KINDS if audit.count(kind))
    shown, hidden = alarms[: SUMMARY_LINES - 2], alarms[SUMMARY_LINES - 2 :]
    clean = [o for o in audit.outcomes if o.checked and o.held == o.checked]
    asides = [o for o in audit.outcomes if o.checked and o.held < o.checked and not _alarms(o)]
    tail = [
        f"{label}: {', '.join(f'{o.check} ({o.held} of {o.checked})' for o in group)}."
        for label, group in (
            ("Also with findings", hidden),
            ("Context only", asides),
            ("Without objection", clean),
        )
        if group
    ]
    return [f"{audit.title}: {counts}.", *(_summary_line(outcome) for outcome in shown), " ".join(tail)]


def _alarms(outcome: Outcome) -> list[Finding]:
    return [finding for finding in outcome.findings if finding.kind in ALARMS]


def _summary_line(outcome: Outcome) -> str:
    worst = min(_alarms(outcome), key=lambda finding: KINDS.index(finding.kind))
    overall = next((finding for finding in outcome.findings if finding.id.endswith("/summary")), worst)
    said = outcome.headline or f"{overall.sentence} ({outcome.held} of {outcome.checked} hold.)"
    return f"{outcome.check}: {said}"


def as_markdown(audit: Audit) -> str:
    """The same, to be read in a terminal or on a code host."""
    parts = [f"# Audit: {_plain(audit.title)}", "", *(f"- {_plain(line)}" for line in summary(audit)), ""]
    for kind, group in groupby(audit.findings, key=lambda finding: finding.kind):
        parts += [f"## {kind.capitalize()}", "", f"{EXPLAINED[kind].capitalize()}.", ""]
        parts += [f"- {_plain(finding.sentence)} <sub>`{finding.id}`</sub>" for finding in group]
        parts.append("")
    parts += [
        "## What was checked",
        "",
        "| check | question | checked | no objection |",
        "| --- | --- | ---: | ---: |",
    ]
    parts += [f"| {o.check} | {_plain(o.question)} | {o.checked} | {o.held} |" for o in audit.outcomes]
    statements = _statement_verdicts(audit)
    if statements:
        parts += [
            "",
            "## Claims, on the printed tables alone",
            "",
            "| claim | source | verdict | because |",
            "| --- | --- | --- | --- |",
        ]
        parts += [
            f"| {_plain(row['statement'])} | {_plain(row['source'])} | {row['status']} | {_plain(row['because'])} |"
            for row in statements
        ]
    return "\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup in a table cell or HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _statement_verdicts(audit: Audit) -> list[dict[str, str]]:
    claims = {claim.id: claim for claim in audit.claims if claim.statement}
    return [
        {
            "statement": claims[verdict.claim].statement,
            "source": claims[verdict.claim].source,
            "status": verdict.status,
            "because": verdict.because,
        }
        for verdict in audit.verdicts
        if verdict.claim in claims
    ]


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
        summary=summary(audit),
        counts=[(kind, audit.count(kind)) for kind in KINDS],
        groups=groups,
        outcomes=audit.outcomes,
        verdicts=_statement_verdicts(audit),
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
