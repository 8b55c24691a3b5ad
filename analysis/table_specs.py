"""What each table of the paper shows, as data: which methods in which order, under which printed name.

Table 1 comes from the data and Table 5 from representations; `analysis.tables` and `analysis.mmd_table` build those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from analysis.audit.cells import Cell as PrintedCell
from analysis.audit.paper_tables import Paper
from analysis.plan import Plan, Sweep

HEADLINE = ("HR@10", "NDCG@10")  # what is shown, tested and asked where not every cut-off is
CLAIMANT = "aligndiff"
TUNED = f"{CLAIMANT}.tuned"  # the same equations from another start; its variants are named after AlignDiff's
# Headings over rows that are not in the paper's table, in the order in which they are shown.
OTHER_METHODS = "Methods that the paper does not compare"
OTHER_SETTINGS = "Baselines under other settings"
OWN_VARIANTS = "AlignDiff: other readings, variants and controls"
TWINS = "The same from the tuned start"
FLOORS = "Floors: nothing is trained"
GROUPS = (OTHER_METHODS, OTHER_SETTINGS, OWN_VARIANTS, TWINS, FLOORS)


@dataclass(frozen=True)
class Subject:
    """One row: the method's key, its name in our tables, and its name in the paper's transcribed table."""

    method: str
    display: str
    printed: str | None = None
    group: str = ""  # one of GROUPS for a row that is not in the paper's table


@dataclass(frozen=True)
class TableSpec:
    """One table. metrics: None takes HR and NDCG at every cut-off of the plan."""

    slug: str
    title: str
    caption: str
    subjects: tuple[Subject, ...]
    metrics: tuple[str, ...] | None = None
    takes_others: bool = False  # planned methods that no other table shows are added as rows
    has_improvement: bool = False

    def metrics_under(self, plan: Plan) -> tuple[str, ...]:
        return self.metrics or tuple(f"{name}@{k}" for name in ("HR", "NDCG") for k in plan.cutoffs)


TABLES = (
    TableSpec(
        slug="table2",
        title="Table 2. Main comparison",
        caption="HR and NDCG in percent over all test users, full ranking. Best and second are marked, and the best "
        "baseline is sought, among the paper's own rows: ten baselines and AlignDiff. All else is apart and unmarked.",
        subjects=(
            Subject("gru4rec", "GRU4Rec", "GRU4Rec"),
            Subject("caser", "Caser", "Caser"),
            Subject("sasrec", "SASRec", "SASRec"),
            Subject("bert4rec", "BERT4Rec", "BERT4Rec"),
            Subject("comirec", "ComiRec", "ComiRec"),
            Subject("svae", "SVAE", "SVAE"),
            Subject("acvae", "ACVAE", "ACVAE"),
            Subject("stosa", "STOSA", "STOSA"),
            Subject("cadirec", "CaDiRec", "CaDiRec"),
            Subject("diffurec", "DiffuRec", "DiffuRec"),
            Subject("aligndiff", "AlignDiff", "AlignDiff"),
        ),
        takes_others=True,
        has_improvement=True,
    ),
    TableSpec(
        slug="table3",
        title="Table 3. Ablations",
        caption="AlignDiff without multi-level guidance (w/o ML) and without the energy function (w/o EN).",
        subjects=(
            Subject("aligndiff.without_guidance", "w/o ML", "w/o ML"),
            Subject("aligndiff.without_energy", "w/o EN", "w/o EN"),
            Subject("aligndiff", "AlignDiff", "AlignDiff"),
        ),
    ),
    TableSpec(
        slug="table4",
        title="Table 4. Energy functions",
        caption="AlignDiff with energy functions of other depth and kind; three layers is AlignDiff itself.",
        subjects=(
            Subject("aligndiff.energy_1", "1-layer MLP", "1-layer MLP"),
            Subject("aligndiff", "3-layer MLP", "3-layer MLP"),
            Subject("aligndiff.energy_6", "6-layer MLP", "6-layer MLP"),
            Subject("aligndiff.energy_transformer", "Transformer", "Transformer"),
        ),
    ),
    TableSpec(
        slug="table6",
        title="Table 6. Correction steps",
        caption="Energy correction repeated at inference, on the same trained weights.",
        subjects=(
            Subject("aligndiff", "1 step", "1"),
            Subject("aligndiff.correction_2", "2 steps", "2"),
            Subject("aligndiff.correction_4", "4 steps", "4"),
            Subject("aligndiff.correction_8", "8 steps", "8"),
        ),
        metrics=HEADLINE,
    ),
    TableSpec(
        slug="table7",
        title="Table 7. Rival losses",
        caption="The energy function trained with a gradient penalty (GAD-GP) or adversarially (GAD-Adv); the paper "
        "defines neither, the readings are ours.",
        subjects=(
            Subject("aligndiff.gad_gp", "GAD-GP", "GAD-GP"),
            Subject("aligndiff.gad_adv", "GAD-Adv", "GAD-Adv"),
            Subject("aligndiff", "AlignDiff", "AlignDiff"),
        ),
        metrics=("HR@5", "HR@10", "NDCG@5", "NDCG@10"),
    ),
)


def sweep_spec(sweep: Sweep) -> TableSpec:
    """Describe the numbers behind one panel of Figure 3; the paper prints no readable values there."""
    return TableSpec(
        slug=f"figure3_{sweep.name}",
        title=f"Figure 3 in numbers: {sweep.name}",
        caption=f"{sweep.method} with {sweep.field} varied, everything else as in its configuration.",
        subjects=tuple(
            Subject(name, f"{sweep.field} = {value}") for name, value in zip(sweep.cells, sweep.values, strict=True)
        ),
        metrics=HEADLINE,
    )


def subjects_under(spec: TableSpec, plan: Plan, dataset: str) -> list[Subject]:
    """Return the rows of a table on a dataset: the paper's in its order, then all others by group."""
    labels = plan.labels()
    if not spec.takes_others:
        return [*spec.subjects, *_twins_under(spec, plan, dataset)]
    elsewhere = {subject.method for other in TABLES for subject in (*other.subjects, *twins(other))} - {TUNED}
    elsewhere |= plan.swept()
    known = {subject.method for subject in spec.subjects}
    others = [
        Subject(name, labels[name], group=group_of(name, cell.variant_of, known))
        for name, cell in plan.methods().items()
        if name not in elsewhere
    ]
    own = [replace(subject, display=labels.get(subject.method, subject.display)) for subject in spec.subjects]
    return own + sorted(others, key=lambda subject: GROUPS.index(subject.group))


def twins(spec: TableSpec) -> list[Subject]:
    """Return the rows of a table of AlignDiff's variants, each trained as aligndiff.tuned; no row of the paper's."""
    if any(subject.method.partition(".")[0] != CLAIMANT for subject in spec.subjects):
        return []
    return [
        Subject(TUNED + subject.method.removeprefix(CLAIMANT), f"{subject.display}, tuned", group=TWINS)
        for subject in spec.subjects
    ]


def _twins_under(spec: TableSpec, plan: Plan, dataset: str) -> list[Subject]:
    """AlignDiff (tuned) alone makes no rows of variants."""
    found = twins(spec)
    return found if any(plan.seeds(dataset, twin.method) for twin in found if twin.method != TUNED) else []


def group_of(method: str, origin: str | None, known: set[str]) -> str:
    """Return the heading over a row that is not in the paper's table.  known: methods of the table itself."""
    if method.startswith("floor."):
        return FLOORS
    if origin == CLAIMANT:
        return OWN_VARIANTS
    return OTHER_SETTINGS if origin in known else OTHER_METHODS


def printed_cells(paper: Paper, slug: str) -> dict[tuple[str, str, str], PrintedCell]:
    """Look printed cells up by dataset key, printed name of the row, and metric."""
    number = slug.removeprefix("table")
    return {(cell.dataset.lower(), cell.model, cell.metric): cell for cell in paper.table(number)}


def datasets_under(printed: Iterable[tuple[str, ...]], paper: Paper, plan: Plan) -> dict[str, str]:
    """Return the plan's datasets, then those only the paper's table has, with display names.

    A plan without any of the paper's datasets is about something else: there the paper's would only be in the way.
    """
    names = {row.dataset.lower(): row.dataset for row in paper.statistics}
    in_table = dict.fromkeys(key[0] for key in printed)
    if not names.keys() & plan.datasets.keys():
        return dict(plan.datasets)
    return dict(plan.datasets) | {key: names[key] for key in in_table if key not in plan.datasets}
