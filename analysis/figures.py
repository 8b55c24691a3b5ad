"""All figures from records: learning curves, differences with intervals, Figure 3's sweeps, MMD, Figure 4.

    python -m analysis.figures --runs results/demo/runs --plan results/demo/plan.json \\
        --tables results/demo/tables --out results/demo/figures

Each figure is written as PDF, SVG and PNG; `figures.json` lists them with titles and captions for the report.
A figure without data is not drawn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import comparisons, mmd_table, plots
from analysis.curves import read_curves
from analysis.load import Runs, load_runs
from analysis.mmd_run import read_representations
from analysis.plan import Plan, read_plan
from analysis.projection import Space, clouds_of, joint_space, project_pca, project_tsne, subsample
from analysis.table_specs import HEADLINE
from harness import cli
from harness.record import write_text_atomically

FILE = "figures.json"
PER_PANEL = 6  # curves one can tell apart in one panel
FIGURE_4 = (("diffurec", "diffurec.keys"), ("aligndiff",))  # of each model the first reading that was run
FIGURE_4_POINTS = 1500  # users per model: t-SNE of 4,500 points takes seconds
FIGURE_4_SEED = 0
COVERS = {"over_seeds": "seeds", "over_users": "users", "over_both": "seeds and users"}


@dataclass(frozen=True)
class FigureEntry:
    """What figures.json says of one figure; its files are {slug}.pdf, .svg and .png."""

    slug: str
    title: str
    caption: str
    section: str  # of the report: "curves", "results" or "paper"


Drawn = tuple[Figure, FigureEntry]


def draw_curves(runs: Runs, plan: Plan) -> Iterator[Drawn]:
    """Draw validation curves, a figure per dataset with a few methods per panel."""
    k = plan.headline_cutoff
    curves = read_curves(runs, plan, metric=f"NDCG@{k}")
    for dataset, display in plan.datasets.items():
        table = curves[curves["dataset"] == dataset]
        methods = list(dict.fromkeys(table["method"]))
        if not methods:
            continue
        panels = [methods[i : i + PER_PANEL] for i in range(0, len(methods), PER_PANEL)]
        rows, columns = -(-len(panels) // 2), min(2, len(panels))
        figure, axes = plots.new_figure(
            rows, columns, width=plots.COLUMN_WIDTH if columns == 1 else plots.PAGE_WIDTH, height=3.2 * rows
        )
        for ax, names in zip(axes.flat, panels, strict=False):
            part = table[table["method"].isin(names)]
            plots.learning_curves(part, ax, value="value", label=f"validation NDCG@{k}, %")
            ax.set_ylim(0, 1.05 * table["value"].max() or None)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        caption = (
            f"Validation NDCG@{k} during training on {display}: thin lines are seeds, thick lines their mean up to the "
            "first seed that stops, bands one sample standard deviation."
        )
        yield figure, FigureEntry(f"curves_{dataset}", f"Learning curves, {display}", caption, "curves")


def draw_differences(table: pd.DataFrame, plan: Plan) -> Iterator[Drawn]:
    """Draw what each method of `comparisons.csv` (AlignDiff, AlignDiff (tuned)) is ahead of each of its rivals.

    A figure per dataset and method, a panel per metric, with what each interval covers.
    """
    for (dataset, method), on in table.groupby(["dataset", "method"], sort=False):
        metrics = list(dict.fromkeys(on["metric"]))
        figure, axes = plots.new_figure(
            1, len(metrics), width=plots.PAGE_WIDTH, height=1.0 + 0.28 * on["rival_display"].nunique()
        )
        for ax, metric in zip(axes.flat, metrics, strict=True):
            plots.interval_plot(_one_row_per_interval(on[on["metric"] == metric]), ax, label=f"{metric}, points")
        for ax in axes.flat[1:]:
            ax.tick_params(labelleft=False)
        plots.legend_above(figure, axes, title="interval covers")
        name, where = _display(plan, method), plan.datasets[dataset]
        caption = (
            f"{name} minus each method on {where}, in percentage points: positive where {name} is ahead, 95 % "
            "intervals. A hollow point has no such interval: one seed shows no spread."
        )
        yield (
            figure,
            FigureEntry(f"differences_{dataset}_{method}", f"{name} minus each method, {where}", caption, "results"),
        )


def _one_row_per_interval(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (row["rival_display"], row["difference"], row[f"{name}_low"], row[f"{name}_high"], cover)
            for _, row in rows.iterrows()
            for name, cover in COVERS.items()
        ],
        columns=["name", "estimate", "low", "high", "covers"],
    )


def draw_sweeps(runs: Runs, plan: Plan) -> Iterator[Drawn]:
    """Draw Figure 3: one figure per sweep, HR@10 and NDCG@10 beside each other."""
    if not plan.sweeps:
        return
    values = runs.table([10])
    planned = {(cell.dataset, cell.method, cell.seed) for cell in plan.cells}
    keys = zip(values["dataset"], values["method"], values["seed"], strict=True)
    values = values[np.array([key in planned for key in keys], dtype=bool) & (values["protocol"] == "kept")]
    for sweep in plan.sweeps:
        at = dict(zip(sweep.cells, sweep.values, strict=True))
        rows = values[values["method"].isin(at)]
        numeric = all(isinstance(value, int | float) for value in sweep.values)
        if rows.empty or not numeric:
            continue
        figure, axes = plots.new_figure(1, 2, width=plots.PAGE_WIDTH)
        spread = 0 < min(sweep.values) * 20 < max(sweep.values)
        for ax, metric in zip(axes.flat, HEADLINE, strict=True):
            part = rows[rows["metric"] == metric]
            tidy = pd.DataFrame(
                {"line": part["dataset"].map(plan.datasets), "x": part["method"].map(at), "value": 100 * part["value"]}
            )
            plots.sweep_lines(tidy, ax, x_label=sweep.field, y_label=f"{metric}, %", log=spread)
        caption = f"Test figures over {sweep.field}; bars are one sample standard deviation where there are seeds."
        yield figure, FigureEntry(f"figure3_{sweep.name}", f"Figure 3: {sweep.field}", caption, "paper")


def draw_mmd(mmd: Sequence[mmd_table.MMDRun], plan: Plan) -> Iterator[Drawn]:
    """Draw Table 5 in the two views that compare models."""
    mmd = [run for run in mmd if run.seed in plan.seeds(run.dataset, run.method)]
    if not mmd:
        return
    figure, axes = plots.new_figure(1, 2, width=plots.PAGE_WIDTH)
    cut_off = {run.method for run in mmd if run.cut_off}
    names = {run.method: _display(plan, run.method) + "†" * (run.method in cut_off) for run in mmd}
    for ax, view in zip(axes.flat, ("standardised", "cosine"), strict=True):
        rows = [(plan.datasets.get(r.dataset, r.dataset), names[r.method], r.value(view) / mmd_table.UNIT) for r in mmd]
        bars = pd.DataFrame(rows, columns=["group", "method", "value"])
        plots.mmd_bars(bars, ax, label=f"squared MMD / {mmd_table.UNIT:g}", title=view)
    plots.legend_above(figure, axes)
    caption = "Squared MMD between generated and true representations; points are runs, lines one standard deviation."
    if cut_off:
        caption += " † At least one run was ended by its limit of epochs."
    yield figure, FigureEntry("table5_mmd", "Table 5 as a picture", caption, "paper")


def draw_projections(folder: Path, plan: Plan) -> Iterator[Drawn]:
    """Draw Figure 4 for each dataset of which both models' representations exist, each of its first planned seed."""
    for dataset, display in plan.datasets.items():
        files = dict(found for found in (_first_reading(folder / dataset, names, plan) for names in FIGURE_4) if found)
        if len(files) < len(FIGURE_4):
            continue
        spaces = {name: Space(*read_representations(path)) for name, path in files.items()}
        spaces = subsample(spaces, FIGURE_4_POINTS, np.random.default_rng(FIGURE_4_SEED))
        joint = joint_space(spaces, list(files)[-1])
        pictures = {"PCA": project_pca(clouds_of(joint)), "t-SNE": project_tsne(clouds_of(joint), FIGURE_4_SEED)}
        figure = plots.projection_grid({title: picture.points for title, picture in pictures.items()})
        seeds = ", ".join(f"{name} {path.stem}" for name, path in files.items())
        caption = " ".join([joint.caption, *(picture.caption for picture in pictures.values()), f"Runs: {seeds}."])
        yield figure, FigureEntry(f"figure4_{dataset}", f"Figure 4: representations on {display}", caption, "paper")


def _first_reading(folder: Path, methods: Sequence[str], plan: Plan) -> tuple[str, Path] | None:
    """Name and first planned seed's file of the first method that has one. folder: of the dataset."""
    for method in methods:
        for seed in plan.seeds(folder.name, method):
            if (path := folder / method / f"seed{seed}.npz").is_file():
                return _display(plan, method), path
    return None


def _display(plan: Plan, method: str) -> str:
    return plan.labels().get(method, method)


def write(drawn: Iterator[Drawn], folder: Path) -> list[FigureEntry]:
    """Save every figure and figures.json."""
    entries = []
    for figure, entry in drawn:
        plots.save_figure(figure, folder / entry.slug)
        entries.append(entry)
    text = json.dumps([asdict(entry) for entry in entries], indent=1)
    write_text_atomically(folder / FILE, text + "\n")
    return entries


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.figures", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True, type=Path, help="folder of runs: {dataset}/{method}/seed{seed}")
    parser.add_argument("--plan", required=True, type=Path, help="plan.json of the configuration")
    parser.add_argument("--tables", type=Path, help="folder of the tables, for comparisons.csv")
    parser.add_argument("--mmd", type=Path, help="folder of MMD files: {dataset}/{method}/seed{seed}.json")
    parser.add_argument("--representations", type=Path, help="folder of {dataset}/{method}/seed{seed}.npz")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--skip-corrupt", action="store_true", help="leave unreadable runs out")
    parser.add_argument("--allow-mixed", action="store_true", help="runs of different digests as separate lines")
    options = parser.parse_args(argv)
    plan = read_plan(options.plan)
    runs = load_runs(
        options.runs, planned=plan.paths, skip_corrupt=options.skip_corrupt, allow_mixed=options.allow_mixed
    )
    tested = comparisons.read(options.tables) if options.tables else comparisons.compare_runs(runs, plan)
    mmd = mmd_table.read_folder(options.mmd, runs) if options.mmd else []
    drawn = itertools.chain(  # one at a time: each is drawn when it is written
        draw_differences(tested, plan),
        draw_sweeps(runs, plan),
        draw_mmd(mmd, plan),
        draw_projections(options.representations, plan) if options.representations else (),
        draw_curves(runs, plan),
    )
    write(drawn, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
