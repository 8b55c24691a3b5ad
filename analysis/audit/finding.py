"""What the audit says: findings, outcomes of checks, verdicts on claims.

Both halves of the audit use these types: the checks of printed tables in this package and the checks against
our own runs. A finding states a fact about numbers; it never guesses how the numbers came about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["impossible", "error in arithmetic", "inconsistent", "unsupported", "context", "holds"]
KINDS: tuple[str, ...] = get_args(Kind)
# Kinds that contradict something printed. The other two inform.
ALARMS: frozenset[str] = frozenset(KINDS[:4])

Status = Literal["holds", "holds in direction only", "not reproduced", "contradicted", "undecided"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Finding:
    """One fact found by one check.

    printed:  what the paper prints, as text; expected: what the check allows or computes, as text.
    evidence: every number behind the sentence, JSON values only.
    """

    id: str
    check: str
    kind: Kind
    sentence: str
    claims: tuple[str, ...] = ()
    dataset: str = ""
    printed: str = ""
    expected: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"finding {self.id}: kind {self.kind!r} is none of {', '.join(KINDS)}")

    @property
    def is_alarm(self) -> bool:
        return self.kind in ALARMS

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"claims": list(self.claims)}


@dataclass(frozen=True)
class Outcome:
    """What one check looked at: `checked` things, of which `held` are as its question asks, and what it found.

    headline: its findings in one sentence, for summaries; without one the gravest finding speaks.
    """

    check: str
    question: str
    checked: int
    held: int
    findings: tuple[Finding, ...] = ()
    headline: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {"check": self.check, "question": self.question, "checked": self.checked, "held": self.held}


@dataclass(frozen=True)
class Verdict:
    """The standing of one claim, from its tables (basis "tables") or from our runs (basis "runs").

    runs: number of seeds behind an estimate; never 1 for anything but "undecided".
    p: corrected for the comparisons tested together, which `family` names.
    rule: the thresholds in force, fixed before the runs. Both only with basis "runs".
    """

    claim: str
    basis: Literal["tables", "runs"]
    status: Status
    because: str
    findings: tuple[str, ...] = ()
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    runs: int | None = None
    family: str = ""
    rule: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"verdict on {self.claim}: status {self.status!r} is none of {', '.join(STATUSES)}")
        if self.runs == 1 and self.status != "undecided":
            raise ValueError(f"verdict on {self.claim}: one run decides nothing; status must be 'undecided'")

    def as_dict(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        values = asdict(self) | {"findings": list(self.findings), "interval": interval}
        if self.basis == "tables":  # nothing was tested on runs
            del values["family"], values["rule"]
        return values


@dataclass(frozen=True)
class Counterpart:
    """One printed figure beside what our runs measured, in the printed unit; None where there is nothing to say.

    difference: measured minus printed. inside: the printed figure, as rounded, meets the interval over seeds.
    state: what became of planned runs without a figure.
    """

    claim: str
    method: str
    printed: str
    measured: float | None = None
    std: float | None = None
    interval: tuple[float, float] | None = None
    difference: float | None = None
    inside: bool | None = None
    runs: int = 0
    status: Status = "undecided"
    state: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"interval": None if self.interval is None else list(self.interval)}
