"""Figures: what is drawn equals the table, one seed shows no band, and the same data gives the same bytes."""

import numpy as np
import pandas as pd
import pytest

from analysis.plots import (
    COLUMN_WIDTH,
    PALETTE,
    interval_plot,
    learning_curves,
    mmd_bars,
    new_figure,
    projection_grid,
    projection_scatter,
    save_figure,
    styles_of,
    sweep_lines,
)


@pytest.fixture
def ax():
    return new_figure()[1][0, 0]


def history(lengths):
    return pd.DataFrame(
        [
            {"method": "AlignDiff", "seed": seed, "epoch": epoch, "val": 0.1 * epoch + 0.01 * seed}
            for seed, length in enumerate(lengths)
            for epoch in range(1, length + 1)
        ]
    )


def intervals():
    return pd.DataFrame(
        {
            "name": ["SASRec", "SASRec", "DiffuRec"],
            "covers": ["seeds", "users", "seeds"],
            "estimate": [0.4, 0.4, -0.1],
            "low": [0.1, 0.3, np.nan],
            "high": [0.7, 0.5, np.nan],
        }
    )


def mmd_table():
    return pd.DataFrame(
        {
            "group": ["Beauty"] * 5 + ["Toys"],
            "method": ["DiffuRec"] * 3 + ["AlignDiff"] * 2 + ["AlignDiff"],
            "value": [3.0, 4.0, 5.0, 1.0, 3.0, -0.5],
        }
    )


def clouds():
    rng = np.random.default_rng(0)
    label = np.repeat(["ground truth", "DiffuRec", "AlignDiff"], 30)
    return pd.DataFrame({"label": label, "x": rng.normal(size=90), "y": rng.normal(size=90)})


def test_mean_curve_ends_with_the_first_seed_that_stops(ax):
    assert learning_curves(history([5, 3]), ax, value="val") is ax
    mean = ax.lines[-1]
    assert list(mean.get_xdata()) == [1, 2, 3]
    assert list(mean.get_ydata()) == pytest.approx([0.105, 0.205, 0.305])
    assert mean.get_label() == "AlignDiff (n=2)"
    assert len(ax.lines) == 3 and len(ax.collections) == 1


def test_one_seed_has_no_band(ax):
    learning_curves(history([4]), ax, value="val")
    assert not ax.collections


def test_epochs_without_validation_are_skipped(ax):
    table = history([4, 4])
    table.loc[table["epoch"] == 2, "val"] = np.nan
    learning_curves(table, ax, value="val")
    assert list(ax.lines[-1].get_xdata()) == [1, 3, 4]


def test_interval_plot_lists_names_once_from_the_top_and_hollows_missing_intervals(ax):
    assert interval_plot(intervals(), ax, label="difference (points)") is ax
    assert [t.get_text() for t in ax.get_yticklabels()] == ["SASRec", "DiffuRec"]
    assert ax.get_ylim() == (1.5, -0.5)
    seeds = next(c for c in ax.collections if c.get_label() == "seeds")
    assert (seeds.get_facecolor()[1][:3] == 1).all() and (seeds.get_facecolor()[0][:3] != 1).any()


def test_sweep_draws_means(ax):
    table = pd.DataFrame({"line": "Beauty", "x": [0.1, 0.1, 1.0], "value": [1.0, 3.0, 5.0]})
    sweep_lines(table, ax, x_label="eta", y_label="NDCG@10 (%)", log=True)
    assert list(ax.lines[0].get_ydata()) == [2.0, 5.0]
    assert ax.get_xscale() == "log"


def test_bars_show_means_every_run_and_no_deviation_for_one(ax):
    mmd_bars(mmd_table(), ax)
    assert [bar.get_height() for bar in ax.patches if bar.get_height()] == [4.0, 2.0, -0.5]  # the rest is the legend
    assert ax.get_legend() is None and ax.get_legend_handles_labels()[1] == ["DiffuRec", "AlignDiff"]
    points = [len(c.get_offsets()) for c in ax.collections if hasattr(c, "get_sizes") and len(c.get_sizes())]
    assert sum(points) == 6


def test_truth_is_grey_and_first(ax):
    projection_scatter(clouds(), ax)
    assert [c.get_label() for c in ax.collections] == ["ground truth", "DiffuRec", "AlignDiff"]
    red, green, blue = ax.collections[0].get_facecolor()[0][:3]
    assert red == green == blue


def test_grid_has_one_legend_and_hides_spare_axes():
    figure = projection_grid({"PCA": clouds(), "t-SNE": clouds(), "own": clouds()})
    assert len(figure.legends) == 1 and len(figure.legends[0].get_texts()) == 3
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]
    assert figure.get_figwidth() == COLUMN_WIDTH


def test_eleven_methods_look_different():
    styles = styles_of([f"m{i}" for i in range(11)])
    assert len({(s["color"], s["linestyle"]) for s in styles.values()}) == 11
    assert styles["m0"]["color"] == styles["m8"]["color"] == PALETTE[0]


def test_same_data_gives_the_same_bytes(tmp_path):
    def written(folder):
        figure = projection_grid({"PCA": clouds(), "t-SNE": clouds()})
        other, axes = new_figure()
        interval_plot(intervals(), axes[0, 0], label="difference")
        return [p.read_bytes() for p in save_figure(figure, folder / "f4") + save_figure(other, folder / "d@10.v")]

    first = written(tmp_path / "a")
    assert first == written(tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        f"{stem}.{kind}" for stem in ("d@10.v", "f4") for kind in ("pdf", "png", "svg")
    ]
