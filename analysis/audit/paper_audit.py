"""The audit of the paper: every check that needs no training, over every printed table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from analysis.audit import (
    arithmetic,
    consistency,
    context,
    equations,
    feasibility,
    provenance,
    released_code,
    settings,
    significance,
    statements,
    whole_counts,
)
from analysis.audit.cells import Cell
from analysis.audit.claims import Claim, all_claims, table_verdicts
from analysis.audit.claims import statements as read_statements
from analysis.audit.finding import KINDS, Counterpart, Finding, Outcome, Verdict
from analysis.audit.paper_tables import NUM_RUNS, Paper, load_paper, read_facts, released_data

P_CAPTION = 0.001  # caption of Table 5
METHOD = "AlignDiff"


@dataclass(frozen=True)
class Audit:
    """Everything one audit produced. `claims` and `verdicts` are empty for a table from elsewhere.

    counterparts: printed figures beside measured ones; thresholds: in force for verdicts from runs. Without runs
    there are none.
    """

    title: str
    outcomes: tuple[Outcome, ...]
    claims: tuple[Claim, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    counterparts: tuple[Counterpart, ...] = ()
    thresholds: Mapping[str, float] | None = None

    @property
    def findings(self) -> list[Finding]:
        """All findings, gravest kind first; in order of the checks within a kind."""
        found = [finding for outcome in self.outcomes for finding in outcome.findings]
        return sorted(found, key=lambda finding: KINDS.index(finding.kind))

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)


def audit_paper(paper: Paper | None = None) -> Audit:
    """Run every check that needs no training."""
    paper = paper or load_paper()
    outcomes = tuple(with_holds(outcome) for outcome in (*_table_outcomes(paper), *_fact_outcomes(paper)))
    claims = all_claims(paper)
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    return Audit(
        title="AlignDiff: the printed tables",
        outcomes=outcomes,
        claims=tuple(claims),
        verdicts=tuple(table_verdicts(claims, findings)),
    )


def with_holds(outcome: Outcome) -> Outcome:
    """Say so in a finding where a check had something to look at and found nothing."""
    if outcome.findings or not outcome.checked:
        return outcome
    finding = Finding(
        id=f"{outcome.check}/all",
        check=outcome.check,
        kind="holds",
        sentence=f"{outcome.question} Yes, all {outcome.checked}.",
        evidence={"checked": outcome.checked},
    )
    return replace(outcome, findings=(finding,))


def _table_outcomes(paper: Paper) -> list[Outcome]:
    cells = list(paper.cells)
    same = {(row["table"], row["subject"]): row["means"] for row in read_facts("same_cells")}
    spoken = read_statements()
    return [
        feasibility.check(cells),
        arithmetic.check_statistics(paper.statistics),
        arithmetic.check_improvements(cells),
        consistency.check_repeats(cells, same),
        consistency.check_twins(cells),
        _about_claim(significance.check(cells, P_CAPTION, "as the caption of Table 2 says"), "p-below-0.001"),
        significance.check_caption(cells, P_CAPTION),
        significance.check_exact_floor(NUM_RUNS, P_CAPTION),
        statements.check_orderings(spoken, cells),
        statements.check_sparse_gains(paper.table("2"), ("Beauty", "Toys"), "ML-1M"),
        statements.check_spread(paper.table("2")),
        summarise_whole_counts(cells, paper.users),
        whole_counts.check_single_run(cells, paper.users),
    ]


def _fact_outcomes(paper: Paper) -> list[Outcome]:
    main_table = paper.table("2")
    earlier = provenance.earlier_rows(read_facts("earlier_rows"), read_facts("earlier_sources"))
    figures = context.figures_of(read_facts("context_figures"))
    return [
        provenance.check(main_table, earlier),
        settings.check(read_facts("settings")),
        released_code.check_code(read_facts("released_code")),
        released_code.check_data(paper.statistics, released_data()),
        equations.check(),
        context.check_floors(main_table, figures),
        context.check_others(main_table, figures),
        context.check_best_baseline(main_table, figures, METHOD),
    ]


def _about_claim(outcome: Outcome, claim: str) -> Outcome:
    findings = tuple(replace(finding, claims=(*finding.claims, claim)) for finding in outcome.findings)
    return replace(outcome, findings=findings)


def summarise_whole_counts(cells: list[Cell], users: dict[str, int]) -> Outcome:
    """Fold the whole-count test into one sentence.

    The released evaluation takes means of batch means, under which the test says nothing: as context it stays.
    """
    outcome = whole_counts.check(cells, users, NUM_RUNS)
    failing = [finding.evidence["failed"] for finding in outcome.findings]
    count = sum(len(metrics) for metrics in failing)
    finding = Finding(
        id="whole_counts/summary",
        check="whole_counts",
        kind="context" if count else "holds",
        claims=("five-runs",),
        printed=f"{outcome.checked} HR cells",
        expected="plain means over all users of five runs",
        evidence={
            "tested": outcome.checked,
            "not_a_plain_mean": count,
            "rows": [f.id for f in outcome.findings],
        },
        sentence=f"{count} of {outcome.checked} HR cells cannot be the plain mean of {NUM_RUNS} runs over all users "
        "(no whole number of hits gives them). The released evaluation averages batch means of unequal size, which "
        "would explain it; so would another number of runs or users left out.",
    )
    return replace(outcome, findings=(finding,))
