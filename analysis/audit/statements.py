"""Do the paper's own tables say what its text says of them?"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean

from analysis.audit.cells import Cell, is_better
from analysis.audit.claims import Claim
from analysis.audit.finding import Finding, Outcome


def check_orderings(claims: Iterable[Claim], cells: Iterable[Cell]) -> Outcome:
    """Compare subject and object of every ordering claim in every printed cell that both have."""
    cells, findings = list(cells), []
    checked = held = 0
    for claim in claims:
        if claim.kind not in ("ordering", "best-setting") or not claim.source.startswith("Table"):
            continue
        pairs = pairs_of(claim, cells)
        good = [pair for pair in pairs if is_better(*pair)]
        checked, held = checked + len(pairs), held + len(good)
        findings.append(_ordering_finding(claim, pairs, good))
    return Outcome("orderings", "Do the tables show the orders that the text states?", checked, held, tuple(findings))


def pairs_of(claim: Claim, cells: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Return the printed cells (ours, other) that an ordering claim about "Table N" compares."""
    number = claim.source.split()[1]
    table = [cell for cell in cells if cell.table == number]
    return [
        (ours, other)
        for ours in table
        for other in table
        if ours.model == claim.subject
        and other.model != ours.model
        and (ours.dataset, ours.metric) == (other.dataset, other.metric)
        and claim.object in ("*", other.model)
        and claim.dataset in ("*", ours.dataset)
        and claim.metric in ("*", ours.metric)
    ]


def _ordering_finding(claim: Claim, pairs: list[tuple[Cell, Cell]], good: list[tuple[Cell, Cell]]) -> Finding:
    bad = [f"{ours.dataset} {ours.metric} against {other.model}" for ours, other in pairs if (ours, other) not in good]
    return Finding(
        id=f"orderings/{claim.id}",
        check="orderings",
        kind="holds" if pairs and not bad else "inconsistent",
        claims=(claim.id,),
        printed=claim.statement,
        expected=f"{len(pairs)} of {len(pairs)} comparisons",
        evidence={"comparisons": len(pairs), "in_claimed_order": len(good), "against": bad},
        sentence=f"{claim.source}: {claim.statement} {len(good)} of {len(pairs)} printed comparisons have "
        f"that order." + (f" Not: {', '.join(bad)}." if bad else ""),
    )


def check_sparse_gains(cells: Iterable[Cell], sparse: tuple[str, ...], dense: str) -> Outcome:
    """Compare the claimed improvements on sparse datasets with those on the dense one, metric by metric.

    Gains that are larger on average only are no objection: the claim does not say in which metrics.
    """
    gains: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.improvement is not None:
            gains.setdefault(cell.dataset, {})[cell.metric] = float(cell.improvement)
    larger = {name: [metric for metric, gain in gains[name].items() if gain > gains[dense][metric]] for name in sparse}
    means = {name: mean(gains[name].values()) for name in (*sparse, dense)}
    partial = [name for name in sparse if len(larger[name]) < len(gains[dense])]
    lower = [name for name in sparse if means[name] <= means[dense]]
    total = len(gains[dense])
    counts = "; ".join(f"{name} in {len(larger[name])} of {total} metrics (mean {means[name]:.2f}%)" for name in sparse)
    finding = Finding(
        id="orderings/sparse-gains",
        check="sparse_gains",
        kind="unsupported" if lower else "context" if partial else "holds",
        claims=("sparse-gains",),
        printed="the gains are largest on sparse data",
        expected=f"{total} of {total} metrics on each sparse dataset",
        evidence={"mean_improvement_percent": means, "metrics_with_larger_gain": larger},
        sentence=f"Table 2: the claimed improvement exceeds that on {dense} (mean {means[dense]:.2f}%) on {counts}.",
    )
    held = sum(len(metrics) for metrics in larger.values())
    return Outcome(
        "sparse_gains", "Are the printed gains larger on sparse data?", total * len(sparse), held, (finding,)
    )


def check_spread(cells: Iterable[Cell]) -> Outcome:
    """Ask whether a table that a significance claim rests on prints any spread or p-value."""
    cells = list(cells)
    bare = [cell for cell in cells if cell.std is None and cell.p is None]
    finding = Finding(
        id="spread/T2",
        check="spread",
        kind="unsupported" if bare else "holds",
        claims=("significant-all",),
        printed="significantly outperforms all baselines on three datasets",
        expected="standard deviations or p-values",
        evidence={"cells": len(cells), "without_spread": len(bare)},
        sentence=f"Table 2 prints neither a deviation nor a p-value for {len(bare)} of {len(cells)} cells, so no "
        "statement of significance about HR or NDCG can be checked from it.",
    )
    return Outcome(
        "spread",
        "Does the table behind a significance claim print spreads?",
        len(cells),
        len(cells) - len(bare),
        (finding,),
    )
