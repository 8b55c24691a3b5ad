"""How do printed baselines stand beside untrained floors and others' runs of the same models?

Context, not contradiction: protocols differ, above all in whether items already seen stay candidates ("kept") or are
removed ("hidden"). Every figure carries its source and protocol.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.audit.cells import Cell, table_name
from analysis.audit.finding import Finding, Outcome

UNTRAINED = "none (counts)"


@dataclass(frozen=True)
class Figure:
    """A figure from elsewhere, in percent."""

    dataset: str
    model: str
    metric: str
    value: float
    training: str
    seen_items: str
    source: str

    @property
    def run(self) -> tuple[str, str, str]:
        """What tells one run of a model from another, as far as the table of figures says it."""
        return self.training, self.seen_items, self.source

    def as_dict(self) -> dict[str, object]:
        return {
            "model": self.model,
            "value": self.value,
            "training": self.training,
            "seen_items": self.seen_items,
            "source": self.source,
        }


def figures_of(rows: Iterable[dict[str, str]]) -> list[Figure]:
    """Read figures from the rows of `claims/context_figures.csv`."""
    names = ("dataset", "model", "metric", "training", "seen_items", "source")
    return [Figure(value=float(row["value"]), **{name: row[name] for name in names}) for row in rows]


def check_floors(cells: Iterable[Cell], figures: Iterable[Figure], protocol: str = "kept") -> Outcome:
    """List printed rows below an untrained model of the same protocol, at every metric they share."""
    cells = list(cells)
    floors = [f for f in figures if f.training == UNTRAINED and f.seen_items == protocol]
    findings, checked = [], 0
    for floor_key in dict.fromkeys((f.dataset, f.model) for f in floors):
        floor = {f.metric: f for f in floors if (f.dataset, f.model) == floor_key}
        dataset, name = floor_key
        models = dict.fromkeys(cell.model for cell in cells if cell.dataset == dataset)
        below = [model for model in models if _is_below(cells, (dataset, model), floor)]
        checked += len(models)
        if below:
            findings.append(_floor_finding(cells, floor, below))
    below_all = sum(len(finding.evidence["below"]) for finding in findings)
    return Outcome(
        check="floors",
        question="Are printed rows above untrained counts on the same split and protocol?",
        checked=checked,
        held=checked - below_all,
        findings=tuple(findings),
    )


def _is_below(cells: list[Cell], row: tuple[str, str], floor: dict[str, Figure]) -> bool:
    shared = [c for c in cells if (c.dataset, c.model) == row and c.metric in floor]
    return bool(shared) and all(cell.value < floor[cell.metric].value for cell in shared)


def _floor_finding(cells: list[Cell], floor: dict[str, Figure], below: list[str]) -> Finding:
    any_floor = next(iter(floor.values()))
    metric = "HR@10" if "HR@10" in floor else any_floor.metric
    printed = {
        c.model: c.printed.text
        for c in cells
        if c.dataset == any_floor.dataset and c.metric == metric and c.model in below
    }
    listed = ", ".join(f"{model} {text}" for model, text in printed.items())
    return Finding(
        id=f"floors/{any_floor.dataset}/{any_floor.model}",
        check="floors",
        kind="context",
        claims=tuple(c.id for c in cells if c.dataset == any_floor.dataset and c.model in below and c.metric in floor),
        dataset=any_floor.dataset,
        printed=listed,
        expected=f"{any_floor.model} {floor[metric].value:.2f}",
        evidence={
            "floor": {m: f.value for m, f in floor.items()},
            "below": below,
            "seen_items": any_floor.seen_items,
        },
        sentence=f"{any_floor.dataset}: untrained {any_floor.model} counts reach {metric} {floor[metric].value:.2f} "
        f"with seen items {any_floor.seen_items}; printed below it on every metric: {listed}.",
    )


def check_others(cells: Iterable[Cell], figures: Iterable[Figure], metric: str = "HR@10") -> Outcome:
    """Compare each printed row with others' runs of the same model; state range, protocol and ratio."""
    trained = [f for f in figures if f.training != UNTRAINED and f.metric == metric]
    findings = []
    for cell in cells:
        others = [f for f in trained if (f.dataset, f.model) == (cell.dataset, cell.model)]
        if cell.metric == metric and others:
            findings.append(_others_finding(cell, others))
    within = sum(finding.evidence["is_within"] for finding in findings)
    return Outcome(
        check="others_runs",
        question=f"Do printed baselines ({metric}) lie within others' runs of the same models?",
        checked=len(findings),
        held=within,
        findings=tuple(findings),
    )


def _others_finding(cell: Cell, others: list[Figure]) -> Finding:
    values = [f.value for f in others]
    low, high = min(values), max(values)
    kept = [f.value for f in others if f.seen_items == "kept"]
    kept_said = f"{_span(kept)} with seen items kept" if kept else "none with seen items kept"
    return Finding(
        id=f"others_runs/{cell.id}",
        check="others_runs",
        kind="context",
        claims=(cell.id,),
        dataset=cell.dataset,
        printed=cell.printed.text,
        expected=f"[{low:.2f}, {high:.2f}]",
        evidence={
            "figures": [f.as_dict() for f in others],
            "is_within": low <= cell.value <= high,
            "share_of_best": cell.value / high,
        },
        sentence=f"{table_name(cell)}, {cell.dataset}, {cell.model}: {cell.metric} printed {cell.printed.text}; in "
        f"others' hands {_span(values)} (all protocols; {kept_said}), {len(others)} in number: "
        f"{100 * cell.value / high:.0f}% of the best of them.",
    )


def check_best_baseline(
    cells: Iterable[Cell], figures: Iterable[Figure], method: str, metric: str = "HR@10"
) -> Outcome:
    """List baselines that in others' hands pass the printed figure of the method; NDCG at the same K stands beside."""
    cells = list(cells)
    trained = [f for f in figures if f.training != UNTRAINED]
    beside = metric.replace("HR", "NDCG")
    findings, checked = [], 0
    for ours in cells:
        if ours.model != method or ours.metric != metric:
            continue
        of_dataset = [f for f in trained if f.dataset == ours.dataset]
        baselines = dict.fromkeys(f.model for f in of_dataset if f.metric == metric)
        checked += len(baselines)
        second = next((c for c in cells if (c.model, c.dataset, c.metric) == (method, ours.dataset, beside)), None)
        for baseline in baselines:
            theirs = [f for f in of_dataset if f.model == baseline]
            above = [f for f in theirs if f.metric == metric and f.value > ours.value]
            if above:
                findings.append(_above_finding(ours, above, second, [f for f in theirs if f.metric == beside]))
    return Outcome(
        check="best_baselines",
        question=f"Is the method's printed {metric} above its baselines in others' hands?",
        checked=checked,
        held=checked - len(findings),
        findings=tuple(findings),
    )


def _above_finding(ours: Cell, above: list[Figure], second: Cell | None, others: list[Figure]) -> Finding:
    """Say by how much, and what the same runs reach in the second metric: they need not pass it there, too."""
    baseline = above[0].model
    values = [f.value for f in above]
    runs = {f.run for f in above}
    beside = [f for f in others if f.run in runs]
    tail = ""
    if second is not None and beside:
        tail = (
            f" In {second.metric} the same runs reach {_by_protocol(beside)}, where {second.printed.text} is printed."
        )
    return Finding(
        id=f"best_baselines/{ours.dataset}/{baseline}",
        check="best_baselines",
        kind="context",
        claims=("best-overall", ours.id),
        dataset=ours.dataset,
        printed=f"{ours.model} {ours.printed.text}",
        expected=f"{baseline} {min(values):.2f} to {max(values):.2f}",
        evidence={
            "figures": [f.as_dict() for f in above],
            "beside": [f.as_dict() | {"metric": f.metric} for f in beside],
        },
        sentence=f"{ours.dataset}: {baseline} reaches {ours.metric} {_by_protocol(above)} in others' hands; "
        f"{ours.model} is printed at {ours.printed.text}.{tail}",
    )


def _by_protocol(figures: list[Figure]) -> str:
    return " and ".join(
        f"{_span(values)} with seen items {protocol}"
        for protocol in ("kept", "hidden")
        if (values := [f.value for f in figures if f.seen_items == protocol])
    )


def _span(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
