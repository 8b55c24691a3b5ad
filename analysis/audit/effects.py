"""What choices of protocol, data and released code change in our runs: context, with the same caution as a verdict.

Nothing is said of a difference with too few runs on a side, except that it is undecided and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from analysis.audit.cells import Row, rows_of
from analysis.audit.counterparts import METHODS
from analysis.audit.finding import Finding, Outcome
from analysis.audit.judging import Result, corrected, lacking_text, reasons_text, test_difference
from analysis.audit.paper_tables import Paper
from analysis.audit.samples import Contrast, Samples, compare
from analysis.table_specs import CLAIMANT, HEADLINE
from harness.metrics import batch_mean, per_user

METRIC = "HR@10"
RELEASED = "aligndiff.released"
ONE_METRIC = f"{RELEASED}.one_metric"
FILTERED, UNFILTERED = "ml-1m", "ml-1m-unfiltered"
BATCHED = ("aligndiff", "diffurec")  # their code reports means of batch means
TERMS = ("correction_ratio", "correction_cosine_across")


def outcomes(samples: Samples, paper: Paper) -> list[Outcome]:
    """Look at everything the plan has runs for."""
    variants = [name for name in samples.plan.methods() if name.startswith(f"{RELEASED}.") and name != ONE_METRIC]
    found = [
        check_protocols(samples),
        check_printed_rows(samples, paper),
        check_items(samples),
        check_variants(samples, [ONE_METRIC], "selection_rule", "Does the rule that picks the epoch matter?"),
        check_variants(samples, variants, "released_defects", "Does undoing a released defect change the result?"),
        check_batch_means(samples),
        check_energy(samples),
    ]
    return [outcome for outcome in found if outcome.findings]


def check_protocols(samples: Samples) -> Outcome:
    """Does the order of the methods change when seen items are hidden?"""
    findings, checked, held = [], 0, 0
    for dataset in samples.plan.datasets:
        means = {
            method: [_mean(samples, dataset, method, protocol) for protocol in ("kept", "hidden")]
            for method in samples.plan.methods()
            if method not in samples.plan.swept() and method != "floor.oracle" and _is_enough(samples, dataset, method)
        }
        if len(means) < 2:
            continue
        pairs = list(combinations(means, 2))
        swapped = [(a, b) for a, b in pairs if np.prod(np.subtract(means[a], means[b])) < 0]
        checked, held = checked + len(pairs), held + len(pairs) - len(swapped)
        places = [1 + sum(m[i] > means[CLAIMANT][i] for m in means.values()) for i in (0, 1) if CLAIMANT in means]
        ours = f" AlignDiff is number {places[0]} and {places[1]} of {len(means)}." if places else ""
        shown = "; ".join(f"{a} and {b}" for a, b in swapped[:3])
        findings.append(
            _context(
                f"seen_items/{dataset}",
                f"{dataset}, {METRIC}: between seen items kept and hidden, {len(swapped)} of {len(pairs)} pairs of "
                f"methods change their order of means{f' ({shown})' if shown else ''}.{ours}",
                {"percent_kept_hidden": means, "swapped": [list(pair) for pair in swapped]},
                dataset,
            )
        )
    return Outcome(
        "seen_items", "Is the order of methods the same with seen items hidden?", checked, held, (*findings,)
    )


def check_printed_rows(samples: Samples, paper: Paper) -> Outcome:
    """How far are our means from the printed rows, with seen items kept and hidden? Differences only, no test."""
    findings, checked, near = [], 0, 0
    for (dataset, model), row in _printed_rows(paper).items():
        method = METHODS["2", model]
        for ours in (method, f"{method}.tuned"):
            if not _is_enough(samples, dataset, ours):
                continue
            off = {
                protocol: [
                    100 * (_mean(samples, dataset, ours, protocol, metric) / cell.value - 1)
                    for metric, cell in row.items()
                ]
                for protocol in ("kept", "hidden")
            }
            ranges = {protocol: f"{min(each):+.1f} to {max(each):+.1f}%" for protocol, each in off.items()}
            checked += 1
            near += max(map(abs, off["kept"])) <= max(map(abs, off["hidden"]))
            findings.append(
                _context(
                    f"printed_rows/{dataset}/{ours}",
                    f"{ours} on {dataset} against the printed {model} in {len(row)} metrics: {ranges['kept']} with "
                    f"seen items kept, {ranges['hidden']} with them hidden.",
                    {"metrics": list(row)} | {f"percent_{protocol}": each for protocol, each in off.items()},
                    dataset,
                )
            )
    question = "Do our figures come nearer to the printed rows with seen items kept, as the headline has them?"
    return Outcome("printed_rows", question, checked, near, tuple(findings))


def _printed_rows(paper: Paper) -> dict[tuple[str, str], Row]:
    return {(dataset.lower(), model): row for (_, dataset, model), row in rows_of(paper.table("2")).items()}


def check_items(samples: Samples) -> Outcome:
    """How far are figures on 3,416 and on 3,706 items of ML-1M apart?"""
    plan, results = samples.plan, []
    for method in plan.methods():
        if not (plan.seeds(FILTERED, method) and plan.seeds(UNFILTERED, method)):
            continue
        settings = {_settings(samples, dataset, method) for dataset in (FILTERED, UNFILTERED)} - {None}
        if len(settings) > 1:
            results.append(Result(method, lacking=((f"{method} on {FILTERED} and {UNFILTERED}", "other settings"),)))
            continue
        for metric in HEADLINE:
            sides = [np.array(list(samples.by_seed(d, method, metric).values())) for d in (UNFILTERED, FILTERED)]
            result = Result(f"{metric} of {method}", runs=(len(sides[0]), len(sides[1])))
            if not all(_is_enough(samples, dataset, method) for dataset in (UNFILTERED, FILTERED)):
                states = [samples.state(dataset, method) for dataset in (UNFILTERED, FILTERED)]
                results.append(Result(result.name, lacking=tuple(states)))
                continue
            found = test_difference(*sides, 1 - samples.thresholds.alpha, paired=False)
            if found:
                mean = float(sides[0].mean() - sides[1].mean())
                results.append(Result(result.name, result.unit, mean, found.low, found.high, found.p, runs=result.runs))
    question = "Do the figures on ML-1M depend on the filtering that Table 1 states?"
    return _differences("ml_1m_items", question, f"{UNFILTERED} against {FILTERED}", results, samples)


def check_variants(samples: Samples, variants: Sequence[str], name: str, question: str) -> Outcome:
    """Compare variants of the released code, some of which undo several choices, with it; both directions count."""
    plan = samples.plan
    contrasts = [
        Contrast(dataset, METRIC, variant, RELEASED)
        for dataset in plan.datasets
        for variant in variants
        if plan.seeds(dataset, variant) and plan.seeds(dataset, RELEASED)
    ]
    results = [compare(samples, contrast) for contrast in contrasts]
    return _differences(name, question, "with one choice undone or more, against as released", results, samples)


def _differences(name: str, question: str, what: str, results: Sequence[Result], samples: Samples) -> Outcome:
    alpha, results = samples.thresholds.alpha, corrected(results)
    measured = [result for result in results if result.is_measured]
    clear = [result for result in measured if result.corrected < alpha]
    findings = [
        _context(
            f"{name}/{number}",
            f"{what[0].upper()}{what[1:]}, {result.text}: "
            + ("a difference." if result in clear else "no difference shown.")
            + (f" Incomplete: {reasons_text(result.note)}." if result.note else ""),
            {"difference": result.difference, "low": result.low, "high": result.high, "corrected_p": result.corrected}
            | {"runs": list(result.runs), "family": len(results), "alpha": alpha},
        )
        for number, result in enumerate(measured, start=1)
    ]
    if len(measured) < len(results):
        left = len(results) - len(measured)
        said = f"{question} Undecided in {left} of {len(results)} comparisons.{lacking_text(results)}"
        findings.append(_context(f"{name}/undecided", said, {"comparisons": len(results), "undecided": left}))
    return Outcome(name, question, len(measured), len(measured) - len(clear), tuple(findings))


def check_batch_means(samples: Samples) -> Outcome:
    """How far is the mean of batch means from the mean over users? Arithmetic on each run; nothing is inferred."""
    gaps: dict[str, list[float]] = {}
    for run in samples.runs.runs:
        size = run.record.settings.get("model", {}).get("batch_size")
        is_counted = run.record.method.partition(".")[0] in BATCHED and size and "test_kept" in run.ranks
        if is_counted and run.record.seed in samples.plan.seeds(run.record.dataset, run.record.method):
            rank_U = run.ranks["test_kept"]
            gap = 100 * (batch_mean(rank_U, METRIC, size) - float(per_user(rank_U, METRIC).mean()))
            gaps.setdefault(run.record.dataset, []).append(gap)
    findings = [
        _context(
            f"batch_means/{dataset}",
            f"{dataset}, {METRIC}: reported as the mean of batch means, {len(found)} runs of AlignDiff, DiffuRec and "
            f"their variants move by {min(found):+.4f} to {max(found):+.4f} percentage points.",
            {"runs": len(found), "lowest": min(found), "highest": max(found)},
            dataset,
        )
        for dataset, found in gaps.items()
    ]
    question = "Is the mean of batch means the mean over users?"
    same = sum(abs(gap) < 5e-5 for found in gaps.values() for gap in found)  # not seen in four printed decimals
    return Outcome("batch_means", question, sum(map(len, gaps.values())), same, tuple(findings))


def check_energy(samples: Samples) -> Outcome:
    """Report how large the energy's correction is and where it points."""
    findings = []
    places = [(d, m) for d in samples.plan.datasets for m in (CLAIMANT, RELEASED) if _is_enough(samples, d, m)]
    for dataset, method in places:
        values = {
            term: [
                r.record.diagnostics[term] for r in samples.completed(dataset, method) if term in r.record.diagnostics
            ]
            for term in TERMS
        }
        if min(map(len, values.values())) < samples.thresholds.least_seeds:
            continue
        ratio, cosine = (np.array(values[term]) for term in TERMS)
        said = (
            f"{method} on {dataset}, {len(ratio)} runs: the correction changes the representation by "
            f"{100 * ratio.mean():.3g}% of its length ({100 * ratio.min():.3g} to {100 * ratio.max():.3g}%); its "
            f"part across it, which alone can change a ranking, has a cosine of {cosine.mean():+.3f} "
            f"({cosine.min():+.3f} to {cosine.max():+.3f}) with the way to the target."
        )
        findings.append(_context(f"energy/{dataset}/{method}", said, values, dataset))
    question = "Does the energy's correction move anything, and towards the target?"
    towards = sum(np.mean(finding.evidence["correction_cosine_across"]) > 0 for finding in findings)
    return Outcome("energy", question, len(findings), int(towards), tuple(findings))


def _settings(samples: Samples, dataset: str, method: str) -> str | None:
    """Digest of the settings of a method's runs on a dataset; None without runs."""
    return next((run.record.settings_sha256 for run in samples.completed(dataset, method)), None)


def _mean(samples: Samples, dataset: str, method: str, protocol: str, metric: str = METRIC) -> float:
    return float(np.mean(list(samples.by_seed(dataset, method, metric, protocol).values())))


def _is_enough(samples: Samples, dataset: str, method: str) -> bool:
    protocols = [samples.by_seed(dataset, method, METRIC, protocol) for protocol in ("kept", "hidden")]
    return min(map(len, protocols)) >= samples.thresholds.least_seeds


def _context(identity: str, sentence: str, evidence: dict, dataset: str = "") -> Finding:
    check = identity.partition("/")[0]
    return Finding(identity, check, "context", sentence, dataset=dataset, evidence=evidence)
