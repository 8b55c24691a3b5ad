"""Is one and the same result printed alike wherever it is printed?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from analysis.audit.arithmetic import exact_improvement
from analysis.audit.cells import Cell, best_of, is_better, rows_of, table_name
from analysis.audit.finding import Finding, Outcome

MIN_DECIMALS = 2
ROUND_STEP = Decimal("0.1")
Same = Mapping[tuple[str, str], str]  # (table, subject) -> the model it is


def check_repeats(cells: Iterable[Cell], same: Same) -> Outcome:
    """Compare cells of different tables that show the same model, data and metric."""
    cells = tuple(cells)
    groups: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if (cell.table, cell.model) in same:
            groups[cell.dataset, cell.metric, same[cell.table, cell.model]].append(cell)
    findings, checked = [], 0
    for group in groups.values():
        first, *others = sorted(group, key=lambda cell: cell.table)
        checked += len(others)
        variants: dict[Decimal, list[Cell]] = defaultdict(list)
        for other in others:
            if not other.interval.meets(first.interval):
                variants[other.printed.value].append(other)
        findings += [_repeat_finding(first, differing, cells) for differing in variants.values()]
    differing_cells = sum(len(finding.evidence["other_tables"]) for finding in findings)
    return Outcome(
        check="repeated_cells",
        question="Does the same model have the same figure in every table that shows it?",
        checked=checked,
        held=checked - differing_cells,
        findings=tuple(findings),
        headline=_headline(findings, checked),
    )


def _repeat_finding(first: Cell, differing: list[Cell], cells: tuple[Cell, ...]) -> Finding:
    other = differing[0]
    difference = first.printed.value - other.printed.value
    is_round = is_round_difference(difference)
    rivals = [
        cell
        for cell in cells
        if (cell.table, cell.dataset, cell.metric) == (first.table, first.dataset, first.metric)
        and cell.model != first.model
    ]
    tables = " and ".join(table_name(cell) for cell in differing)
    evidence = {
        "table": first.table,
        "other_tables": [cell.table for cell in differing],
        "difference": float(difference),
        "is_multiple_of_0.1": is_round,
    }
    sentence = (
        f"{first.dataset} {first.metric} of {first.model} is {first.printed.text} in {table_name(first)} and "
        f"{other.printed.text} in {tables}: {difference:+.4f}"
        + (", a multiple of 0.1 to the last printed digit." if is_round else ".")
    )
    rank = 1
    if rivals:
        best = best_of(rivals)
        rank += sum(is_better(rival, other) for rival in rivals)
        gap = exact_improvement(other, best)
        evidence |= {
            "best_rival": best.model,
            "improvement_with_other_figure": gap,
            "rank_with_other_figure": rank,
        }
        sentence += (
            f" With the second figure it would rank {rank} of {len(rivals) + 1} in {table_name(first)}, {gap:+.2f}% "
            f"against {best.model}."
        )
    return Finding(
        id=f"repeated_cells/{first.dataset}/{first.metric}/T{other.table}",
        check="repeated_cells",
        kind="inconsistent",
        claims=(first.id, *(cell.id for cell in differing), *(("best-overall",) if rank > 1 else ())),
        dataset=first.dataset,
        printed=f"{first.printed.text} / {other.printed.text}",
        expected="one figure",
        evidence=evidence,
        sentence=sentence,
    )


def _headline(findings: list[Finding], checked: int) -> str:
    if not findings:
        return ""
    differing = sum(len(finding.evidence["other_tables"]) for finding in findings)
    round_ones = sum(finding.evidence["is_multiple_of_0.1"] for finding in findings)
    where = ", ".join(f"{dataset} {number}" for dataset, number in Counter(f.dataset for f in findings).items())
    sentence = (
        f"{len(findings)} figures ({where}) differ between tables that show the same model on the same data, in "
        f"{differing} of {checked} comparisons; {round_ones} of the differences are multiples of 0.1 to the last "
        "printed digit."
    )
    losing = [f for f in findings if f.evidence.get("rank_with_other_figure", 1) > 1]
    if losing:
        gaps = sorted(f.evidence["improvement_with_other_figure"] for f in losing)
        sentence += (
            f" With the other table's figure the method would not be first in "
            f"{'any' if len(losing) == len(findings) else len(losing)} of them ({gaps[0]:+.1f}% to {gaps[-1]:+.1f}% "
            "against the best other model)."
        )
    return sentence


def is_round_difference(difference: Decimal) -> bool:
    """Tell whether a difference of figures with more decimals is a multiple of 0.1 exactly."""
    return difference != 0 and difference % ROUND_STEP == 0


def check_twins(cells: Iterable[Cell]) -> Outcome:
    """List pairs of different models whose rows on one dataset agree in three figures or more.

    Figures of less than MIN_DECIMALS do not count: they agree by chance.
    """
    rows = rows_of(cells)
    findings, checked = [], 0
    keys = list(rows)
    for index, key in enumerate(keys):
        for other in keys[index + 1 :]:
            if key[:2] != other[:2]:
                continue
            checked += 1
            shared = [
                metric
                for metric, cell in rows[key].items()
                if metric in rows[other] and _is_twin(cell, rows[other][metric])
            ]
            if len(shared) >= 3:
                findings.append(_twin_finding(rows[key], rows[other], shared))
    return Outcome(
        check="identical_rows",
        question="Do different models have different figures?",
        checked=checked,
        held=checked - len(findings),
        findings=tuple(findings),
    )


def _is_twin(cell: Cell, other: Cell) -> bool:
    exact = cell.printed.has_decimals(MIN_DECIMALS)
    return exact and cell.value != 0 and cell.printed.value == other.printed.value


def _twin_finding(row: Mapping[str, Cell], other: Mapping[str, Cell], shared: list[str]) -> Finding:
    first, second = row[shared[0]], other[shared[0]]
    return Finding(
        id=f"identical_rows/T{first.table}/{first.dataset}/{first.model}={second.model}",
        check="identical_rows",
        kind="inconsistent",
        claims=tuple(cells[metric].id for cells in (row, other) for metric in shared),
        dataset=first.dataset,
        printed=", ".join(f"{metric} {row[metric].printed.text}" for metric in shared),
        expected="different figures",
        evidence={"models": [first.model, second.model], "metrics": shared},
        sentence=f"{table_name(first)}, {first.dataset}: {first.model} and {second.model} have the same digits for "
        f"{', '.join(shared)}.",
    )
