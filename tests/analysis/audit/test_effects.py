"""What runs say beside the claims: sizes of effects, by hand on a few users."""

import pytest

from analysis.audit import effects
from analysis.audit.judging import Thresholds
from analysis.audit.samples import Samples
from analysis.load import load_runs
from analysis.plan import read_plan


def test_printed_rows_are_set_beside_our_means_under_both_protocols(grid, paper):
    for seed in (1, 2):
        kept, hidden = ((1,) * hits + (50,) * (100 - hits) for hits in (10, 20))
        grid.write("sasrec.tuned", seed, kept, hidden=hidden, dataset="toys")
    cells = [("sasrec.tuned", seed, "toys") for seed in (1, 2)]
    plan = read_plan(grid.plan(cells, datasets={"toys": {"display": "Toys"}}))
    outcome = effects.check_printed_rows(Samples(load_runs(grid.runs), plan, Thresholds()), paper)
    (finding,) = outcome.findings
    printed = [cell.value for cell in paper.table("2") if (cell.dataset, cell.model) == ("Toys", "SASRec")]
    assert finding.id == "printed_rows/toys/sasrec.tuned" and finding.kind == "context"
    assert finding.evidence["percent_kept"] == pytest.approx([100 * (10 / value - 1) for value in printed])
    assert finding.evidence["percent_hidden"] == pytest.approx([100 * (20 / value - 1) for value in printed])
    assert (outcome.checked, outcome.held) == (1, 1)


def test_items_of_ml_1m_are_compared_only_under_the_same_settings(grid):
    names = {"ml-1m": "ML-1M", "ml-1m-unfiltered": "ML-1M (unfiltered)"}
    for dataset in names:
        for seed in (1, 2):
            third = 7 * seed if dataset == "ml-1m-unfiltered" else 7  # of two seeds one has it among the first ten
            grid.write("diffurec", seed, (seed, 3, third, 50), dataset=dataset)
            grid.write("sasrec", seed, dataset=dataset, settings_sha256=f"{len(dataset):x}" * 32)
    cells = [(method, seed, name) for name in names for method in ("diffurec", "sasrec") for seed in (1, 2)]
    plan = read_plan(grid.plan(cells, datasets={name: {"display": text} for name, text in names.items()}))
    outcome = effects.check_items(Samples(load_runs(grid.runs), plan, Thresholds()))
    assert outcome.findings[0].evidence["difference"] == pytest.approx(62.5 - 75), "unfiltered minus filtered"
    *measured, undecided = [finding.sentence for finding in outcome.findings]
    assert len(measured) == 2 and all("of diffurec" in sentence for sentence in measured)
    assert "Undecided in 1 of 3" in undecided and "sasrec on ml-1m and ml-1m-unfiltered (other settings)" in undecided


def test_the_gap_of_batch_means_by_hand(grid):
    """Batches [hit, hit, hit] and [miss] have the mean 50 %, the four users 75 %."""
    grid.write("diffurec", ranks=(1, 1, 1, 50), settings={"model": {"batch_size": 3}})
    samples = Samples(load_runs(grid.runs), read_plan(grid.plan([("diffurec", 1)])), Thresholds())
    (finding,) = effects.check_batch_means(samples).findings
    assert finding.evidence == {"runs": 1, "lowest": -25.0, "highest": -25.0}
