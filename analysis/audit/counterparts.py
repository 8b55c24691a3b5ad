"""Printed figures beside our runs: cells of Tables 2 to 7, improvements, and the counts of Table 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from analysis.audit.cells import Cell
from analysis.audit.finding import Counterpart, Verdict
from analysis.audit.judging import Judgement, Result, corrected, judge_cell, outside_margin_p, reasons_text
from analysis.audit.paper_tables import Paper
from analysis.audit.printed import Interval
from analysis.audit.samples import NO_SPREAD, Samples
from analysis.table_specs import CLAIMANT, TABLES

METHODS = {
    (spec.slug.removeprefix("table"), subject.printed): subject.method
    for spec in TABLES
    for subject in spec.subjects
    if subject.printed
} | {("5", "AlignDiff"): CLAIMANT, ("5", "DiffuRec"): "diffurec"}
UNSTATED = "The paper states neither kernel, estimator nor view of its MMD, so its figures have no counterpart."
COUNTS = {"sequences": "users", "items": "items", "actions": "actions"}  # Table 1 -> stats.json
Pair = tuple[Verdict, Counterpart]


def judge_cells(paper: Paper, samples: Samples) -> list[Pair]:
    """Judge every printed cell of Tables 2 to 7; the cells of one table are one family."""
    found = []
    for table in dict.fromkeys(cell.table for cell in paper.cells):
        cells = paper.table(table)
        found += [_unstated(cell) for cell in cells] if table == "5" else _judge_table(cells, samples)
    return [(replace(verdict, rule=samples.thresholds.text), beside) for verdict, beside in found]


def _judge_table(cells: list[Cell], samples: Samples) -> list[Pair]:
    thresholds = samples.thresholds
    methods = [METHODS[cell.table, cell.model] for cell in cells]
    values = [
        np.array(list(samples.by_seed(cell.dataset.lower(), method, cell.metric).values()))
        for cell, method in zip(cells, methods, strict=True)
    ]
    ps = [
        outside_margin_p(each, cell.interval, thresholds.margin_percent)
        if len(each) >= thresholds.least_seeds
        else None
        for cell, each in zip(cells, values, strict=True)
    ]
    family = corrected([Result(cell.id, p=p) for cell, p in zip(cells, ps, strict=True)])
    return [
        _judge(cell, method, each, result.corrected, samples=samples, size=len(cells))
        for cell, method, each, result in zip(cells, methods, values, family, strict=True)
    ]


def _judge(cell: Cell, method: str, values_N, p: float | None, *, samples: Samples, size: int) -> Pair:
    thresholds, dataset = samples.thresholds, cell.dataset.lower()
    state = reasons_text(samples.note(dataset, method))
    if p is None:
        why = samples.state(dataset, method)[1] if len(values_N) < thresholds.least_seeds else NO_SPREAD
        mean = float(values_N.mean()) if len(values_N) else None
        runs = len(values_N)
        beside = Counterpart(cell.id, method, cell.printed.text, measured=mean, runs=runs, state=why)
        because = f"{method} on {dataset}: {why}."
        return Verdict(cell.id, "runs", "undecided", because, runs=runs or None), beside
    mean, std = float(values_N.mean()), float(values_N.std(ddof=1))
    reach = float(stats.t.ppf(1 - thresholds.alpha / 2, len(values_N) - 1)) * std / np.sqrt(len(values_N))
    interval = Interval(float(mean - reach), float(mean + reach))
    judged = judge_cell(interval, mean, cell.interval, p, thresholds)
    beside = Counterpart(
        claim=cell.id,
        method=method,
        printed=cell.printed.text,
        measured=mean,
        std=std,
        interval=(interval.lo, interval.hi),
        difference=mean - cell.value,
        inside=interval.meets(cell.interval),
        runs=len(values_N),
        status=judged.status,
        state=state,
    )
    because = f"Printed {cell.printed.text}, measured {mean:.4f}. {judged.because}"
    if state:
        because += f" Incomplete: {state}."
    verdict = Verdict(
        claim=cell.id,
        basis="runs",
        status=judged.status,
        because=because,
        estimate=mean,
        interval=(interval.lo, interval.hi),
        p=p,
        runs=len(values_N),
        family=f"{size} cells of Table {cell.table}",
    )
    return verdict, beside


def _unstated(cell: Cell) -> Pair:
    method = METHODS[cell.table, cell.model]
    beside = Counterpart(cell.id, method, cell.printed.text, state="kernel and view not stated")
    return Verdict(cell.id, "runs", "undecided", UNSTATED), beside


def judge_improvements(paper: Paper, results: Mapping[tuple, Result], samples: Samples) -> list[Pair]:
    """Judge the improvements of Table 2 from the comparisons of `best-overall`, by (dataset, metric, rival).

    The rival is the best baseline, or, where some have no runs, the best of those that are clearly above AlignDiff; its
    mean is taken as exact in the interval of the percentage.
    """
    pairs = []
    for cell in paper.table("2"):
        if cell.improvement is None:
            continue
        here = {rival: r for (dataset, metric, rival), r in results.items() if (dataset, metric) == place(cell)}
        judged, gain = _judge_gain(here, cell, samples)
        decisive = judged.decisive
        claim, printed = f"improvement/{cell.id}", f"{cell.improvement.text}%"
        if gain is None or decisive is None:
            pairs.append(
                (
                    Verdict(claim, "runs", "undecided", judged.because, rule=samples.thresholds.text),
                    Counterpart(claim, CLAIMANT, printed, state="the best other model is not known"),
                )
            )
            continue
        low, mean, high = gain
        beside = Counterpart(
            claim=claim,
            method=CLAIMANT,
            printed=printed,
            measured=mean,
            interval=(low, high),
            difference=mean - float(cell.improvement),
            inside=Interval(low, high).meets(cell.improvement.interval),
            runs=decisive.seeds,
            status=judged.status,
            state=reasons_text(decisive.note),
        )
        verdict = Verdict(
            claim=claim,
            basis="runs",
            status=judged.status,
            because=judged.because,
            estimate=mean,
            interval=(low, high),
            p=decisive.corrected,
            runs=decisive.seeds,
            family=f"{len(results)} comparisons of the claim best-overall",
            rule=samples.thresholds.text,
        )
        pairs.append((verdict, beside))
    return pairs


def place(cell: Cell) -> tuple[str, str]:
    return cell.dataset.lower(), cell.metric


def _judge_gain(here: Mapping[str, Result], cell: Cell, samples: Samples) -> tuple[Judgement, Any]:
    alpha = samples.thresholds.alpha
    lacking = [reason for result in here.values() for reason in result.lacking]
    against = [rival for rival, r in here.items() if r.is_measured and r.difference < 0 and r.corrected < alpha]
    if not here or (lacking and not against):
        why = f"The best other model is not known. Lacking: {reasons_text(lacking)}."
        return Judgement("undecided", why), None
    means = {
        rival: float(np.mean(list(samples.by_seed(*place(cell)[:1], rival, cell.metric).values())))
        for rival, r in here.items()
        if r.is_measured
    }
    rival = max(against if lacking else means, key=means.__getitem__)
    result, base = here[rival], means[rival]
    if not base:
        return Judgement("undecided", f"The best other model, {rival}, scores zero."), None
    low, mean, high = (100 * value / base for value in (result.low, result.difference, result.high))
    said = f"Printed {cell.improvement.text}%, measured {mean:+.2f}% [{low:.2f}, {high:.2f}] over {rival}."
    clear, reaches = result.corrected < alpha, high >= cell.improvement.interval.lo
    if mean > 0 and clear and reaches:
        return Judgement("holds", said, result), (low, mean, high)
    if mean > 0:
        why = " It is smaller than printed." if clear else " It does not survive correction."
        return Judgement("holds in direction only", said + why, result), (low, mean, high)
    if against and rival not in against:
        said += f" {max(against, key=means.__getitem__)} is clearly above AlignDiff."
    return Judgement("contradicted" if against else "not reproduced", said, result), (low, mean, high)


def judge_counts(paper: Paper, data: Mapping[str, Mapping[str, Any]]) -> list[Pair]:
    """Compare the counts of Table 1 with those of the prepared data; they are exact and need no runs."""
    pairs = []
    for row in paper.statistics:
        stats_here = data.get(row.dataset.lower())
        for column, key in COUNTS.items():
            claim, printed = f"T1/{row.dataset}/{column}", getattr(row, column)
            if stats_here is None:
                why = "The data of this dataset are not prepared here."
                pairs.append((Verdict(claim, "runs", "undecided", why), Counterpart(claim, "data", str(printed))))
                continue
            found = stats_here[key]
            status = "holds" if found == printed else "contradicted"
            because = f"Printed {printed}, counted {found}. No run is involved."
            beside = Counterpart(claim, "data", str(printed), measured=found, difference=found - printed, status=status)
            pairs.append((Verdict(claim, "runs", status, because, estimate=found), beside))
    return pairs


def split(pairs: Iterable[Pair]) -> tuple[tuple[Verdict, ...], tuple[Counterpart, ...]]:
    """Separate verdicts from the rows of the table printed against measured."""
    pairs = list(pairs)
    return tuple(verdict for verdict, _ in pairs), tuple(beside for _, beside in pairs)
