"""Claims as data: every printed cell and improvement, generated; every statement, from `claims/statements.csv`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from analysis.audit.finding import Finding, Verdict
from analysis.audit.paper_tables import Paper, read_facts

# Checks that set two places of the paper side by side: one of them is wrong, but which is open.
TWO_PLACES = ("repeated_cells", "settings")
KINDS = ("cell", "improvement", "ordering", "significance", "best-setting", "text", "question")


@dataclass(frozen=True)
class Claim:
    """One checkable statement. dataset, metric, object "*" means every one that the table has."""

    id: str
    source: str
    kind: str
    dataset: str
    metric: str
    subject: str
    object: str
    value: str
    tested_by: str
    statement: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"claim {self.id}: kind {self.kind!r} is none of {', '.join(KINDS)}")

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def statements() -> list[Claim]:
    """Read the hand-written claims."""
    return [Claim(**row) for row in read_facts("statements")]


def cell_claims(paper: Paper) -> list[Claim]:
    """Make one claim of every printed cell, statistic, improvement and p-value."""
    claims = []
    for row in paper.statistics:
        counts = {"sequences": row.sequences, "items": row.items, "actions": row.actions}
        derived = {"avg_len": row.avg_len, "sparsity_percent": row.sparsity_percent}
        texts = {k: str(v) for k, v in counts.items()} | {k: v.text for k, v in derived.items() if v}
        for column, text in texts.items():
            tested_by = "dataset_statistics" if column in derived else "released_data; reproduction"
            identity = f"T1/{row.dataset}/{column}"
            claims.append(Claim(identity, "Table 1", "cell", row.dataset, column, "data", "", text, tested_by))
    for cell in paper.cells:
        about = (f"Table {cell.table}", cell.dataset, cell.metric, cell.model)
        cell_tests = "p_values; reproduction" if cell.metric == "MMD" else "feasibility; repeated_cells; reproduction"
        claims.append(_claim(cell.id, "cell", about, cell.printed.text, cell_tests))
        if cell.improvement is not None:
            text = f"{cell.improvement.text}%"
            tests = "improvements; reproduction"
            claims.append(_claim(f"improvement/{cell.id}", "improvement", about, text, tests))
        if cell.p is not None:
            claims.append(_claim(f"p/{cell.id}", "significance", about, cell.p.text, "p_values; reproduction"))
    return claims


def _claim(identity: str, kind: str, about: tuple[str, str, str, str], value: str, tested_by: str) -> Claim:
    source, dataset, metric, subject = about
    rival = "best other model" if kind in ("improvement", "significance") else ""
    return Claim(identity, source, kind, dataset, metric, subject, rival, value, tested_by)


def all_claims(paper: Paper) -> list[Claim]:
    """Every claim, statements first."""
    return statements() + cell_claims(paper)


def table_verdicts(claims: Iterable[Claim], findings: Iterable[Finding]) -> list[Verdict]:
    """Say where each claim other than a bare cell stands on the printed tables alone.

    A claim that needs runs stays "undecided" even if nothing printed speaks against it.
    """
    findings = list(findings)
    verdicts = []
    for claim in claims:
        if claim.kind == "cell":
            continue
        about = [finding for finding in findings if claim.id in finding.claims]
        verdicts.append(_verdict(claim, about))
    return verdicts


def _verdict(claim: Claim, about: list[Finding]) -> Verdict:
    ids = tuple(finding.id for finding in about)
    alarms = [f for f in about if f.is_alarm]
    doubtful = [f for f in alarms if f.kind == "unsupported" or f.check in TWO_PLACES]
    against = [f for f in alarms if f not in doubtful]
    supported = [f for f in about if f.kind == "holds"]
    if against and supported:
        return Verdict(claim.id, "tables", "undecided", "The tables disagree. " + against[0].sentence, ids)
    if against:
        return Verdict(claim.id, "tables", "contradicted", against[0].sentence, ids)
    if doubtful:
        return Verdict(claim.id, "tables", "undecided", doubtful[0].sentence, ids)
    if supported:
        return Verdict(claim.id, "tables", "holds", supported[0].sentence + " (printed figures only)", ids)
    if claim.kind == "improvement":
        return Verdict(claim.id, "tables", "holds", "Follows from the printed cells within rounding.", ids)
    if about:
        return Verdict(claim.id, "tables", "undecided", about[0].sentence, ids)
    return Verdict(claim.id, "tables", "undecided", "The tables print nothing that tests it; it needs runs.", ids)
