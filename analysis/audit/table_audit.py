"""The audit of anyone's ranking table: the checks that need nothing but the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from analysis.audit import arithmetic, consistency, feasibility, significance, whole_counts
from analysis.audit.cells import Cell
from analysis.audit.finding import Outcome
from analysis.audit.paper_audit import Audit, with_holds


def table_outcomes(cells: Iterable[Cell], users: Mapping[str, int] | None = None, num_runs: int = 1) -> list[Outcome]:
    """Run every check on the cells of one table.

    users: number of test users by dataset, where known; num_runs: runs behind a cell that states no n.
    """
    cells = list(cells)
    outcomes = [
        feasibility.check(cells),
        arithmetic.check_improvements(cells),
        significance.check(cells),
        consistency.check_twins(cells),
    ]
    if users:
        outcomes.append(whole_counts.check(cells, users, num_runs))
    return outcomes


def audit_table(
    title: str, cells: Iterable[Cell], *, users: Mapping[str, int] | None = None, num_runs: int = 1
) -> Audit:
    """Audit one table.

    Raises ValueError if `users` names a dataset that the table does not have.
    """
    cells = list(cells)
    datasets = sorted({cell.dataset for cell in cells})
    unknown = sorted(set(users or {}) - set(datasets))
    if unknown:
        raise ValueError(f"--users names {', '.join(unknown)}; the table has {', '.join(datasets)}")
    outcomes = table_outcomes(cells, users, num_runs)
    return Audit(title=title, outcomes=tuple(with_holds(outcome) for outcome in outcomes))
