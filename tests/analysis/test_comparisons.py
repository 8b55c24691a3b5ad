"""From which ranks, runs and families the p values of comparisons.csv come, on two datasets."""

import numpy as np
import pytest

from analysis import comparisons
from analysis.load import load_runs
from analysis.plan import read_plan
from analysis.significance import holm

NAMES = {"beauty": {"display": "Beauty"}, "toys": {"display": "Toys"}}
SEEDS = {"aligndiff": (1, 2), "caser": (1, 2), "sasrec": (1, 3)}
UNPLANNED = 9


def ranks(dataset, method, seed):
    """Kept ranks of 40 users, AlignDiff's the best by a little; hidden ones are always 1 (see `compared`)."""
    start = [len(dataset), len(method), seed]
    return tuple(np.random.default_rng(start).integers(1, 18 if method == "aligndiff" else 26, 40).tolist())


@pytest.fixture
def compared(grid):
    """compared(data digest of sasrec on beauty) -> the table, of runs with another seed than planned among them."""

    def compare(digest="d" * 64):
        for dataset in NAMES:
            for method, seeds in SEEDS.items():
                other = {"data_sha256": digest} if (dataset, method) == ("beauty", "sasrec") else {}
                for seed in (*seeds, UNPLANNED):
                    grid.write(method, seed, ranks(dataset, method, seed), hidden=(1,) * 40, dataset=dataset, **other)
        cells = [(method, seed, dataset) for dataset in NAMES for method in SEEDS for seed in SEEDS[method]]
        plan = read_plan(grid.plan(cells, datasets=NAMES))
        return comparisons.compare_runs(load_runs(grid.runs, allow_mixed=True), plan, resamples=50)

    return compare


def test_a_family_is_one_metric_over_all_datasets_and_its_ps_are_corrected(compared):
    table = compared()
    for _, family in table.groupby("metric"):
        assert len(family) == 4 and set(family["dataset"]) == set(NAMES)
        for name in ("users_p", "welch_p", "both_p"):
            assert (family[f"{name}_family"] == 4).all()
            assert family[f"{name}_holm"].tolist() == list(holm(family[name].tolist()).adjusted)
        assert (family["users_p_holm"] > family["users_p"]).any()


def test_differences_are_of_kept_ranks_in_planned_runs(compared):
    for row in compared().query("metric == 'HR@10'").itertuples():
        ours, theirs = (
            np.mean([np.array(ranks(row.dataset, method, seed)) <= 10 for seed in SEEDS[method]])
            for method in (row.method, row.rival)
        )
        assert row.protocol == "kept" and row.difference == pytest.approx(100 * (ours - theirs))
        planned = [(method, seed) for method in (row.method, row.rival) for seed in SEEDS[method]]
        assert row.runs.split("; ") == [f"{row.dataset}/{method}/seed{seed}" for method, seed in planned]


def test_only_runs_with_the_same_seeds_are_paired_by_them(compared):
    table = compared()
    assert table.groupby("rival")["paired_t_p"].count().to_dict() == {"caser": 4, "sasrec": 0}


def test_a_dataset_whose_runs_saw_different_data_is_left_out(compared):
    assert set(compared(digest="e" * 64)["dataset"]) == {"toys"}


def test_a_variant_that_ranks_the_same_weights_is_compared_in_pairs(grid):
    variant = "aligndiff.no_correction"
    for seed in (1, 2):
        for method in ("aligndiff", variant, "sasrec"):
            grid.write(method, seed, ranks("beauty", method, seed))
    plan = read_plan(grid.plan([(method, seed) for method in ("aligndiff", variant, "sasrec") for seed in (1, 2)]))
    table = comparisons.compare_runs(load_runs(grid.runs), plan, resamples=50).set_index(["rival", "metric"])
    assert np.isnan(table.loc[(variant, "HR@10"), "welch_p"]) and not np.isnan(
        table.loc[("sasrec", "HR@10"), "welch_p"]
    )
    assert "same weights" in table.loc[(variant, "HR@10"), "absent"]
