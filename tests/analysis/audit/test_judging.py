import numpy as np
import pytest

from analysis.audit.judging import (
    Judgement,
    Result,
    Thresholds,
    corrected,
    judge_cell,
    judge_order,
    kindest,
    outside_margin_p,
    test_difference,
)
from analysis.audit.printed import Interval, Printed

THRESHOLDS = Thresholds()


def compared(ours, rival, name="c"):
    found = test_difference(ours, rival, 0.95, paired=False)
    return Result(name, difference=np.mean(ours) - np.mean(rival), low=found.low, high=found.high, p=found.p)


def test_equal_methods_are_rarely_judged_different():
    """Six true nulls with one shared contestant, three runs a side: a decided verdict at most at rate alpha."""
    rng, draws, wrong = np.random.default_rng(1), 400, 0
    for _ in range(draws):
        ours = rng.normal(size=3)
        results = [compared(ours, rng.normal(size=3), f"c{number}") for number in range(6)]
        wrong += judge_order(corrected(results), THRESHOLDS).status in ("holds", "contradicted")
    assert wrong / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_reproduction_of_a_true_figure_is_rarely_called_contradicted():
    rng, draws, printed = np.random.default_rng(2), 400, Printed.parse("10.000").interval
    ps = [outside_margin_p(rng.normal(10, 2, size=3), printed, 0.5) for _ in range(draws)]
    assert np.mean(np.array(ps) < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_comparisons_not_run_still_count_in_the_family():
    measured = Result("a", difference=1.0, low=0.5, high=1.5, p=0.01)
    assert corrected([measured])[0].corrected == pytest.approx(0.01)
    assert corrected([measured, *[Result("b")] * 9])[0].corrected == pytest.approx(0.1)


def test_no_difference_at_all_is_a_result_and_no_spread_is_not():
    assert test_difference([1.0, 2.0], [1.0, 2.0], 0.95, paired=True).p == 1
    assert test_difference([2.0, 2.0], [1.0, 1.0], 0.95, paired=False) is None


@pytest.mark.parametrize(
    ("interval", "mean", "p", "status"),
    [
        ((9.8, 10.2), 10.0, 1.0, "holds"),
        ((10.3, 10.4), 10.35, 1.0, "holds"),  # not the printed figure, yet within the margin
        ((11.0, 13.0), 12.0, 0.001, "contradicted"),
        ((10.1, 13.0), 11.5, 0.20, "not reproduced"),
        ((5.0, 15.0), 10.0, 1.0, "undecided"),
        ((5.0, 17.0), 11.0, 0.9, "undecided"),
    ],
)
def test_printed_figures(interval, mean, p, status):
    assert judge_cell(Interval(*interval), mean, Printed.parse("10.00").interval, p, THRESHOLDS).status == status


def test_the_kindest_reading_counts():
    readings = {"a": Judgement("contradicted", "A."), "b": Judgement("undecided", "B.")}
    assert kindest(readings).status == "undecided"
    assert "a: contradicted" in kindest(readings).because
    assert kindest({"": Judgement("holds", "C.")}).because == "C."


@pytest.mark.parametrize("values", [{"alpha": 0.0}, {"alpha": 1.0}, {"margin_percent": 0}, {"least_seeds": 1}])
def test_thresholds_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Thresholds(**values)
