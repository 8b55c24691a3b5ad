"""Do derived numbers follow from the numbers they are derived from?

A claimed number is flagged only if its own rounding interval misses everything that the printed inputs,
each anywhere in ITS rounding interval, can give.
"""

from __future__ import annotations

from collections.abc import Iterable

from analysis.audit.cells import Cell, best_of, columns_of, lower_is_better, table_name
from analysis.audit.finding import Finding, Outcome
from analysis.audit.paper_tables import DatasetRow
from analysis.audit.printed import Interval, Printed

ONE = Interval(1.0, 1.0)


def check_statistics(rows: Iterable[DatasetRow]) -> Outcome:
    """Recompute average length and sparsity from the counts of Table 1."""
    rows, findings, checked = tuple(rows), [], 0
    for row in rows:
        average = row.actions / row.sequences
        sparsity = 100 * (1 - row.actions / (row.sequences * row.items))
        formulas = (
            ("avg_len", row.avg_len, average, f"{row.actions} / {row.sequences}"),
            (
                "sparsity_percent",
                row.sparsity_percent,
                sparsity,
                f"1 - {row.actions} / ({row.sequences} * {row.items})",
            ),
        )
        for column, printed, exact, formula in formulas:
            if printed is None:
                continue
            checked += 1
            if not printed.interval.meets(Interval(exact, exact)):
                findings.append(_statistic_finding(row, column, printed, (exact, formula)))
    return Outcome(
        check="dataset_statistics",
        question="Do average length and sparsity of Table 1 follow from its counts?",
        checked=checked,
        held=checked - len(findings),
        findings=tuple(findings),
    )


def _statistic_finding(row: DatasetRow, column: str, printed: Printed, result: tuple[float, str]) -> Finding:
    exact, formula = result
    return Finding(
        id=f"dataset_statistics/{row.dataset}/{column}",
        check="dataset_statistics",
        kind="error in arithmetic",
        claims=(f"T1/{row.dataset}/{column}",),
        dataset=row.dataset,
        printed=printed.text,
        expected=f"{exact:.2f}",
        evidence={"formula": formula, "exact": exact},
        sentence=f"Table 1, {row.dataset}: {formula} = {exact:.2f}, printed {printed.text}.",
    )


def improvement(ours: Cell, rival: Cell) -> Interval:
    """Reach of the relative improvement in percent over both roundings; positive is better."""
    ratio = ours.interval / rival.interval
    change = ONE - ratio if lower_is_better(ours.metric) else ratio - ONE
    return change * 100.0


def exact_improvement(ours: Cell, rival: Cell) -> float:
    """Relative improvement in percent at the printed values; positive is better."""
    change = 100 * (ours.value / rival.value - 1) if rival.value else float("inf")
    return -change if lower_is_better(ours.metric) else change


def check_improvements(cells: Iterable[Cell]) -> Outcome:
    """Recompute every claimed improvement over the best other model of its column."""
    findings, checked = [], 0
    for column in columns_of(cells).values():
        for ours in column:
            rivals = [cell for cell in column if cell.model != ours.model]
            if ours.improvement is None or not rivals:
                continue
            checked += 1
            best = best_of(rivals)
            if not any(_explains(ours, rival) for rival in rivals if rival.interval.meets(best.interval)):
                findings.append(_improvement_finding(ours, best, rivals))
    return Outcome(
        check="improvements",
        question="Do the claimed improvements follow from the cells, against the best other model?",
        checked=checked,
        held=checked - len(findings),
        findings=tuple(findings),
    )


def _explains(ours: Cell, rival: Cell) -> bool:
    assert ours.improvement is not None
    return ours.improvement.interval.meets(improvement(ours, rival))


def _improvement_finding(ours: Cell, best: Cell, rivals: list[Cell]) -> Finding:
    assert ours.improvement is not None
    expected = exact_improvement(ours, best)
    fitting = [rival.model for rival in rivals if _explains(ours, rival)]
    remark = f" The claimed figure is the improvement over {' or '.join(fitting)}." if fitting else ""
    return Finding(
        id=f"improvements/{ours.id}",
        check="improvements",
        kind="error in arithmetic",
        claims=(f"improvement/{ours.id}",),
        dataset=ours.dataset,
        printed=f"{ours.improvement.text}%",
        expected=f"{expected:.2f}%",
        evidence={
            "ours": ours.value,
            "best_rival": best.model,
            "rival_value": best.value,
            "recomputed_percent": expected,
            "fits_rivals": fitting,
        },
        sentence=f"{table_name(ours)}, {ours.dataset} {ours.metric}: {ours.model} {ours.printed.text} against the "
        f"best other model, {best.model} {best.printed.text}, is {expected:+.2f}%; claimed "
        f"{ours.improvement.text}%.{remark}",
    )
