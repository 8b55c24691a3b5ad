"""Figures from tidy tables: every function draws on the axis it is given and returns it.

Nothing is computed here beyond means and deviations over seeds. Colours are Okabe and Ito's (2008), told apart
under every common colour blindness; past eight names the line style and marker change as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMN_WIDTH = 3.4  # inches: one column of a two-column paper
PAGE_WIDTH = 7.0
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREY = "#999999"
LINES, MARKERS = ("-", "--", ":"), "osD^vP"
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # text stays text; journals refuse type 3
    "svg.hashsalt": "aligndiff-bench",
}
# A file names its library but neither date nor hour: same data, same bytes.
METADATA = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}


def _styled(draw: Callable) -> Callable:
    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


@_styled
def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = COLUMN_WIDTH, height: float = 2.4
) -> tuple[Figure, np.ndarray]:
    """Return a figure outside pyplot's global list and its axes [rows, columns]; sizes in inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False)


@_styled
def save_figure(figure: Figure, stem: Path | str) -> list[Path]:
    """Write stem.pdf, stem.svg and stem.png; the same data gives the same bytes."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in METADATA]
    for path, metadata in zip(paths, METADATA.values(), strict=True):
        figure.savefig(path, metadata=metadata, dpi=300)
    return paths


@_styled
def legend_above(figure: Figure, axes: np.ndarray, **how: Any) -> None:
    """Put one legend for all axes above them, three names a line at most."""
    entries: dict[str, Any] = {}
    for ax in axes.flat:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries, loc="outside upper center", ncols=min(3, len(entries)), **how)


def styles_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each name a colour, line style and marker by its position, so one order serves all figures."""
    return {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "linestyle": LINES[i // len(PALETTE) % len(LINES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(dict.fromkeys(names))
    }


@_styled
def learning_curves(table: pd.DataFrame, ax: Axes, *, value: str, label: str | None = None) -> Axes:
    """Draw mean and one standard deviation over seeds per method, and each seed as a thin line.

    Mean and band end with the first seed that stops: beyond it the mean would be one of the survivors.
    Columns: method, seed, epoch and `value`; rows without a value are skipped.
    """
    table = table.dropna(subset=[value])
    styles = styles_of(table["method"])
    for method, runs in table.groupby("method", sort=False):
        color, linestyle = styles[method]["color"], styles[method]["linestyle"]
        wide = runs.pivot(index="epoch", columns="seed", values=value).sort_index()
        for seed in wide.columns:
            ax.plot(wide[seed].dropna(), color=color, linewidth=0.4, alpha=0.5)
        shared = wide.dropna()
        mean = shared.mean(axis=1)
        ax.plot(mean, color=color, linestyle=linestyle, label=f"{method} (n={wide.shape[1]})")
        if wide.shape[1] > 1:
            std = shared.std(axis=1, ddof=1)
            ax.fill_between(mean.index, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel="epoch", ylabel=label or value)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))  # above: curves leave no corner free
    return ax


@_styled
def interval_plot(table: pd.DataFrame, ax: Axes, *, label: str) -> Axes:
    """Draw differences with intervals around a line at zero, first row on top.

    Columns: name, estimate, low, high and covers (what the interval covers). Several rows of one name lie
    beside each other, one colour per `covers`. An interval that does not exist (NaN) shows as a hollow point.
    """
    names, covers = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["covers"]))
    styles, step = styles_of(covers), 0.6 / max(len(covers), 1)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    for cover, rows in table.groupby("covers", sort=False):
        style, shift = styles[cover], (covers.index(cover) - (len(covers) - 1) / 2) * step
        height = [names.index(name) + shift for name in rows["name"]]
        known = rows["low"].notna().to_numpy()
        ax.hlines(height, rows["low"], rows["high"], color=style["color"])
        faces = [style["color"] if k else "white" for k in known]
        ax.scatter(
            rows["estimate"],
            height,
            s=12,
            marker=style["marker"],
            c=faces,
            edgecolors=style["color"],
            label=cover,
            zorder=3,
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(label)
    return ax


@_styled
def sweep_lines(table: pd.DataFrame, ax: Axes, *, x_label: str, y_label: str, log: bool = False) -> Axes:
    """Draw one line per dataset over a hyperparameter (Figure 3), with one standard deviation over seeds.

    Columns: line, x, value, one row per run. A single run has no bar.
    """
    styles = styles_of(table["line"])
    for line, runs in table.groupby("line", sort=False):
        over_seeds = runs.groupby("x")["value"].agg(["mean", "std"])
        style = styles[line]
        ax.errorbar(over_seeds.index, over_seeds["mean"], over_seeds["std"], capsize=2, label=line, **style)
    if log:
        ax.set_xscale("log")
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.legend()
    return ax


@_styled
def projection_scatter(points: pd.DataFrame, ax: Axes, *, title: str = "", styles: Mapping | None = None) -> Axes:
    """Draw labelled points; the first label (the truth) is grey and lies beneath.

    Columns: label, x, y. No ticks: the coordinates have no units.
    """
    labels = list(dict.fromkeys(points["label"]))
    styles = styles or styles_of(labels[1:])
    for i, label in enumerate(labels):
        cloud = points[points["label"] == label]
        color = GREY if i == 0 else styles[label]["color"]
        ax.scatter(cloud["x"], cloud["y"], s=2, color=color, alpha=0.5, linewidths=0, label=label, rasterized=True)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(True)
    return ax


@_styled
def projection_grid(pictures: Mapping[str, pd.DataFrame]) -> Figure:
    """Lay titled projections out in two columns with one legend (Figure 4); captions belong to the text beside it."""
    rows = -(-len(pictures) // 2)
    figure, axes = new_figure(rows, 2, width=COLUMN_WIDTH, height=rows * COLUMN_WIDTH / 2 + 0.3)
    styles = styles_of([label for p in pictures.values() for label in list(dict.fromkeys(p["label"]))[1:]])
    for ax, (title, points) in zip(axes.flat, pictures.items(), strict=False):
        projection_scatter(points, ax, title=title, styles=styles)
    for ax in axes.flat[len(pictures) :]:
        ax.set_axis_off()
    legend_above(figure, axes, markerscale=4)
    return figure


@_styled
def mmd_bars(table: pd.DataFrame, ax: Axes, *, label: str = "squared MMD", title: str = "") -> Axes:
    """Draw the mean per group and method as bars, every run as a point, one standard deviation as a line.

    Columns: group, method, value, one row per run. Unbiased estimates may lie below zero.
    """
    colors = {method: style["color"] for method, style in styles_of(table["method"]).items()}
    where = {"data": table, "x": "group", "y": "value", "hue": "method", "ax": ax}
    seaborn.barplot(**where, palette=colors, errorbar="sd", capsize=0.1, err_kws={"linewidth": 1.2}, alpha=0.6)
    points = dict.fromkeys(colors, "black")
    seaborn.stripplot(**where, palette=points, dodge=True, jitter=False, size=2.2, legend=False, zorder=3)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(xlabel="", ylabel=label, title=title)
    ax.get_legend().remove()
    return ax
