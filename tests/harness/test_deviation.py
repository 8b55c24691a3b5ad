"""What differs between a run's settings and a plan's: every setting that is planned, and no other."""

import pytest

from harness.deviation import deviation, in_words

PLANNED = {"model": {"dropout": 0.1, "heights": [1, 2], "decay": None}, "training": {"patience": 10}}


def ran(**model):
    return {**PLANNED, "model": PLANNED["model"] | model}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (PLANNED, ""),
        (PLANNED | {"training": {"patience": 3}}, "training.patience 3 instead of 10"),
        (PLANNED | {"training": {"patience": 10, "time_budget_seconds": 60.0}}, ""),
        (ran(decay=0.1), "model.decay 0.1 instead of null"),
        (ran(heights=[1], dropout=0.2), "model.dropout 0.2 instead of 0.1, model.heights [1] instead of [1, 2]"),
        (ran(decay=False), "model.decay false instead of null"),
        (
            {"model": {"dropout": 0.1, "heights": [1, 2]}, "training": {"patience": 10}},
            "without model.decay (now null)",
        ),
    ],
)
def test_what_differs_is_named(settings, words):
    assert in_words(deviation(settings, PLANNED)) == words


def test_sections_that_the_plan_leaves_out_do_not_count():
    assert deviation(PLANNED, {"model": PLANNED["model"]}) == deviation(PLANNED, {}) == {}
