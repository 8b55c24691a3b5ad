"""The paper's claims, and questions it does not ask, against our own runs: one verdict each.

A verdict never rests on one run per side, failed and missing runs are named beside it, and a verdict on several
comparisons corrects for all of them (`judging`). Tests are over trainings: Welch's t between independently trained
methods, the paired t where one side evaluates the other's weights again. Headline protocol: seen items stay candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from analysis.audit import counterparts, effects, questions
from analysis.audit.claims import Claim
from analysis.audit.finding import Verdict
from analysis.audit.judging import Judgement, Result, corrected, judge_order, kindest
from analysis.audit.paper_audit import Audit
from analysis.audit.paper_tables import Paper
from analysis.audit.samples import MMD, NO_SPREAD, Contrast, Samples, compare
from analysis.audit.statements import pairs_of
from analysis.plan import Plan, Sweep
from analysis.significance import satterthwaite_t
from analysis.table_specs import CLAIMANT, HEADLINE

MMD_VIEWS = ("standardised", "cosine")  # raw distances of two models lie in two spaces
# Claims about the best value of a field: the sweeps that vary it, and the printed best value by dataset.
BEST = {
    "best-w": (("w",), {"beauty": 0.3, "toys": 0.3, "ml-1m": 0.1}),
    "best-nu": (("nu_as_gamma", "nu_as_delta"), {"beauty": 0.05, "toys": 0.05, "ml-1m": 0.05}),
    "best-eta": (("eta",), {"beauty": 0.01, "toys": 0.01, "ml-1m": 0.01}),
    "best-omega": (("omega",), {"beauty": 0.01, "toys": 0.01, "ml-1m": 0.01}),
}
SPARSE, DENSE = ("beauty", "toys"), "ml-1m"


def against_runs(audit: Audit, paper: Paper, samples: Samples, data: Mapping[str, Mapping[str, Any]]) -> Audit:
    """Add to the audit of the tables what our runs say.  data: the counts of each prepared dataset."""
    overall = [claim for claim in audit.claims if claim.id == "best-overall"]
    contrasts = [contrast for claim in overall for contrast in contrasts_of(claim, paper, samples.plan)]
    results = corrected([compare(samples, contrast) for contrast in contrasts])
    keyed = {(c.dataset, c.metric, c.rival): r for c, r in zip(contrasts, results, strict=True)}
    pairs = [
        *counterparts.judge_counts(paper, data),
        *counterparts.judge_cells(paper, samples),
        *counterparts.judge_improvements(paper, keyed, samples),
    ]
    cell_verdicts, besides = counterparts.split(pairs)
    done = {verdict.claim for verdict in cell_verdicts}
    claims = [claim for claim in audit.claims if "reproduction" in claim.tested_by and claim.id not in done]
    said = [judge_claim(claim, paper, samples, keyed) for claim in claims]
    asked = questions.ask(samples)
    return replace(
        audit,
        title=f"{audit.title} and the runs of plan '{samples.plan.name}'",
        outcomes=(*audit.outcomes, *effects.outcomes(samples, paper)),
        claims=(*audit.claims, *(claim for claim, _ in asked)),
        verdicts=(*said, *(verdict for _, verdict in asked), *cell_verdicts, *audit.verdicts),
        counterparts=besides,
        thresholds=samples.thresholds.as_dict(),
    )


def judge_claim(claim: Claim, paper: Paper, samples: Samples, overall: Mapping[tuple, Result]) -> Verdict:
    """Judge one statement, or one printed p-value, by the comparisons it implies."""
    if claim.id == "sparse-gains":
        results = corrected(sparse_gains(overall, samples))
        return questions.verdict(claim.id, judge_order(results, samples.thresholds), len(results), samples)
    if claim.kind == "improvement":  # of Table 5
        return Verdict(claim.id, "runs", "undecided", counterparts.UNSTATED, rule=samples.thresholds.text)
    thresholds = samples.thresholds
    if claim.kind == "significance" and claim.metric == "MMD":
        thresholds = replace(thresholds, alpha=min(thresholds.alpha, float(claim.value.removeprefix("<"))))
    contrasts = contrasts_of(claim, paper, samples.plan)
    results = corrected([compare(samples, contrast) for contrast in contrasts])
    paired = sorted(zip(contrasts, results, strict=True), key=lambda pair: pair[0].reading)
    readings = {
        reading: judge_order([result for _, result in group], thresholds)
        for reading, group in groupby(paired, key=lambda pair: pair[0].reading)
    }
    judged = kindest(readings) if readings else Judgement("undecided", _nothing(claim, samples.plan))
    return replace(questions.verdict(claim.id, judged, len(results), samples), rule=thresholds.text)


def contrasts_of(claim: Claim, paper: Paper, plan: Plan) -> list[Contrast]:
    """Spell a claim out as comparisons of methods, with the readings it leaves open."""
    if claim.id in BEST:
        sweeps = [sweep for sweep in plan.sweeps if sweep.name in BEST[claim.id][0]]
        return [contrast for sweep in sweeps for contrast in _sweep_contrasts(sweep, BEST[claim.id][1])]
    if claim.metric == "MMD":
        datasets = [row.dataset.lower() for row in paper.statistics if claim.dataset in ("*", row.dataset)]
        return [
            Contrast(dataset, MMD + view, CLAIMANT, "diffurec", reading=f"distance in the {view} view")
            for view in MMD_VIEWS
            for dataset in datasets
        ]
    if claim.id == "significant-all":
        claim = replace(claim, source="Table 2", object="*")
    if not claim.source.startswith("Table"):
        return []
    return [
        Contrast(
            dataset=ours.dataset.lower(),
            metric=ours.metric,
            ours=counterparts.METHODS[ours.table, ours.model],
            rival=counterparts.METHODS[other.table, other.model],
        )
        for ours, other in pairs_of(claim, list(paper.cells))
    ]


def _sweep_contrasts(sweep: Sweep, best: Mapping[str, float]) -> list[Contrast]:
    names = {float(value): name for value, name in zip(sweep.values, sweep.cells, strict=True)}
    return [
        Contrast(dataset, metric, names[value], name, reading=f"sweep {sweep.name}")
        for dataset, value in best.items()
        if value in names
        for metric in HEADLINE
        for other, name in names.items()
        if other != value
    ]


def _nothing(claim: Claim, plan: Plan) -> str:
    if claim.id in BEST:
        return f"The plan '{plan.name}' has no sweep of this field that includes the printed best value."
    return f"The plan '{plan.name}' names nothing that tests it."


def sparse_gains(overall: Mapping[tuple, Result], samples: Samples) -> list[Result]:
    """Compare AlignDiff's relative gain over the best measured baseline on sparse datasets with that on the dense.

    Variances of the four means are carried to the gains by the delta method.
    """
    metrics = list(dict.fromkeys(metric for _, metric, _ in overall))
    return [_sparse_gain(dataset, metric, overall, samples) for dataset in SPARSE for metric in metrics]


def _sparse_gain(dataset: str, metric: str, overall: Mapping[tuple, Result], samples: Samples) -> Result:
    name, unit = f"gain in {metric} on {dataset} against {DENSE}", "percentage points of gain"
    estimate, parts, runs, notes = 0.0, [], [], ()
    for place, sign in ((dataset, 1), (DENSE, -1)):
        here = {rival: r for (d, m, rival), r in overall.items() if (d, m) == (place, metric)}
        lacking = tuple(reason for result in here.values() for reason in result.lacking)
        if lacking:
            return Result(name, unit, lacking=lacking)
        values = {rival: _figures(samples, place, rival, metric) for rival in here}
        rival = max(values, key=lambda each: values[each].mean())
        ours, theirs = _figures(samples, place, CLAIMANT, metric), values[rival]
        if not theirs.mean():
            return Result(name, unit, lacking=((f"{rival} on {place}", "scores zero"),))
        ratio = ours.mean() / theirs.mean()
        estimate += sign * 100 * (ratio - 1)
        for each, slope in ((ours, 1 / theirs.mean()), (theirs, ratio / theirs.mean())):
            parts.append(((100 * slope) ** 2 * each.var(ddof=1) / len(each), len(each) - 1))
            runs.append(len(each))
        notes += here[rival].note
    if not any(variance for variance, _ in parts):
        return Result(name, unit, lacking=((name, NO_SPREAD),))
    found = satterthwaite_t(estimate, parts, 1 - samples.thresholds.alpha)
    low, high, p = float(found.low), float(found.high), float(found.p)
    return Result(name, unit, float(estimate), low, high, p, runs=(min(runs[:2]), min(runs[2:])), note=notes)


def _figures(samples: Samples, dataset: str, method: str, metric: str) -> np.ndarray:
    return np.array(list(samples.by_seed(dataset, method, metric).values()))
