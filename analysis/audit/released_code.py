"""What the authors' released code and data say, against the paper.

A list of facts read off the repository at one commit (`claims/released_code.csv`); nothing is downloaded or run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from analysis.audit.finding import Finding, Outcome
from analysis.audit.paper_tables import DatasetRow

REPOSITORY = "github.com/ZhuYiZ-1205/AlignDiff"
COMMIT = "e19f27907d488e10360627bd7604afb7b0dcb6c9"  # 2025-06-29
STOPS = "stops it"
KIND_OF_EFFECT = {STOPS: "unsupported", "departs from the paper": "inconsistent", "protocol": "context"}


def check_code(rows: Iterable[dict[str, str]]) -> Outcome:
    """Turn the list of defects into findings."""
    findings = tuple(_code_finding(row) for row in rows)
    return Outcome(
        check="released_code",
        question="Does the released code run, and is it the method of the paper?",
        checked=len(findings),
        held=sum(not finding.is_alarm for finding in findings),
        findings=findings,
        headline=_headline(findings) if findings else "",
    )


def _headline(findings: tuple[Finding, ...]) -> str:
    effects = [finding.evidence["effect"] for finding in findings]
    counts = {effect: effects.count(effect) for effect in KIND_OF_EFFECT}
    return (
        f"As released (commit {COMMIT[:7]}) the code does not run: {counts[STOPS]} defects stop it. In "
        f"{counts['departs from the paper']} places it departs from the paper's equations or settings; "
        f"{counts['protocol']} further facts about its protocol are context."
    )


def _code_finding(row: dict[str, str]) -> Finding:
    if row["effect"] not in KIND_OF_EFFECT:
        raise ValueError(
            f"released_code.csv, {row['id']}: effect {row['effect']!r} is none of {', '.join(KIND_OF_EFFECT)}"
        )
    return Finding(
        id=f"released_code/{row['id']}",
        check="released_code",
        kind=KIND_OF_EFFECT[row["effect"]],  # type: ignore[arg-type]
        claims=("released-code",),
        printed=row["file"],
        expected="",
        evidence={"repository": REPOSITORY, "commit": COMMIT, "file": row["file"], "effect": row["effect"]},
        sentence=f"{row['file']}: {row['defect']} {row['why']}",
    )


def check_data(printed: Iterable[DatasetRow], released: Iterable[DatasetRow]) -> Outcome:
    """Compare the counts of the released data files with Table 1."""
    files = {row.dataset: row for row in released}
    findings, agreeing, checked = [], [], 0
    for row in printed:
        file = files[row.dataset]
        counts = [(name, getattr(row, name), getattr(file, name)) for name in ("sequences", "items", "actions")]
        checked += len(counts)
        different = [count for count in counts if count[1] != count[2]]
        if different:
            findings.append(_data_finding(file, different))
        else:
            agreeing.append(row.dataset)
    if findings and agreeing:
        said = f" The counts of {' and '.join(agreeing)} agree."
        findings = [replace(finding, sentence=finding.sentence + said) for finding in findings]
    wrong = sum(len(finding.evidence["counts"]) for finding in findings)
    return Outcome(
        check="released_data",
        question="Are the released data the data of Table 1?",
        checked=checked,
        held=checked - wrong,
        findings=tuple(findings),
    )


def _data_finding(file: DatasetRow, different: list[tuple[str, int, int]]) -> Finding:
    said = "; ".join(f"{name} {released} where Table 1 prints {printed}" for name, printed, released in different)
    return Finding(
        id=f"released_data/{file.dataset}",
        check="released_data",
        kind="inconsistent",
        claims=("table1-data", *(f"T1/{file.dataset}/{name}" for name, _, _ in different)),
        dataset=file.dataset,
        printed=", ".join(f"{name} {printed}" for name, printed, _ in different),
        expected=", ".join(f"{name} {released}" for name, _, released in different),
        evidence={
            "counts": {name: {"printed": a, "released": b} for name, a, b in different},
            "note": file.note,
        },
        sentence=f"{file.dataset}: the released file has {said}. {file.note}",
    )
