import numpy as np
import pytest

from analysis.audit import whole_counts
from analysis.audit.printed import Printed


@pytest.mark.parametrize(
    ("text", "users", "runs", "fits"),
    [
        ("33.33", 3, 1, True),  # 1/3
        ("33.30", 3, 1, False),
        ("50.00", 3, 1, False),
        ("50.00", 3, 2, True),  # 3/6
        ("3.2688", 22363, 1, True),  # 731 hits
        ("3.2690", 22363, 1, False),
    ],
)
def test_known_fractions(text, users, runs, fits):
    assert whole_counts.is_mean_of_counts(Printed.parse(text), users, runs) == fits


def test_several_runs_may_have_been_rounded_first():
    # 2/7 = 28.5714...; 28.571 is half a unit off, 28.572 a whole one, 28.573 more.
    assert not whole_counts.is_mean_of_counts(Printed.parse("28.572"), 7, 1)
    assert whole_counts.is_mean_of_counts(Printed.parse("28.572"), 7, 5)
    assert not whole_counts.is_mean_of_counts(Printed.parse("28.573"), 7, 5)


def test_cells_that_every_value_would_pass_are_not_counted(cell):
    outcome = whole_counts.check([cell("HR@10", "8.1")], {"Data": 22363})
    assert outcome.checked == 0


def test_means_of_counts_never_alarm(cell):
    rng = np.random.default_rng(3)
    for _ in range(500):
        hits_R = rng.integers(0, 6040, size=5)
        exact = 100 * hits_R.mean() / 6040
        rounded_first = np.round(100 * hits_R / 6040, 4).mean()
        for value in (exact, rounded_first):
            outcome = whole_counts.check([cell("HR@10", f"{value:.4f}", n=5)], {"Data": 6040})
            assert outcome.checked == outcome.held == 1


def test_finding_is_conditional_and_lists_what_would_fit(cell):
    (finding,) = whole_counts.check([cell("HR@10", "50.00")], {"Data": 3}).findings
    assert finding.kind == "unsupported"
    assert "would void this test" in finding.sentence
    assert finding.evidence["runs_from_1_to_10_that_fit"] == [2, 4, 6, 8, 10]


def test_single_run_needs_three_figures(row):
    figures = {"HR@5": "3.2688", "HR@10": "6.2648", "HR@20": "8.9791"}
    users = {"Data": 22363}
    (finding,) = whole_counts.check_single_run(row(figures), users).findings
    assert finding.evidence["hits"] == [731, 1401, 2008]
    assert finding.evidence["chance_for_arbitrary_digits"] < 2e-5
    assert not whole_counts.check_single_run(row(figures | {"HR@20": "8.9800"}), users).findings
    del figures["HR@20"]
    assert whole_counts.check_single_run(row(figures), users).checked == 0


def test_means_taken_in_single_precision_never_alarm():
    rng = np.random.default_rng(0)
    hits = rng.integers(1, 22363, size=4000)
    printed = [Printed.parse(f"{np.float32(100) * (np.float32(n) / np.float32(22363)):.4f}") for n in hits]
    assert all(whole_counts.is_mean_of_counts(each, 22363, 1) for each in printed)
