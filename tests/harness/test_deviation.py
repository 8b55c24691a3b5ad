"""What differs between a run's settings and a plan's: every setting that decides, and none that does not."""

import pytest

from harness.deviation import deciding, deviation, in_words
from harness.fit import CLOCK

PLANNED = {"model": {"dropout": 0.1, "heights": [1, 2], "decay": None}, "training": {"patience": 10}}


@pytest.mark.parametrize(
    ("ran", "words"),
    [
        (PLANNED, ""),
        (PLANNED | {"training": {"patience": 3}}, "training.patience 3 instead of 10"),
        (PLANNED | {"training": {"patience": 10, "time_budget_seconds": 60.0}}, ""),
        ({**PLANNED, "model": PLANNED["model"] | {"heights": (1, 2)}}, ""),
        ({**PLANNED, "model": PLANNED["model"] | {"decay": 0.1}}, "model.decay 0.1 instead of null"),
        ({**PLANNED, "model": PLANNED["model"] | {"gone": 1}}, "model.gone 1 instead of absent"),
        (
            {"model": {"dropout": 0.1, "heights": [1]}, "training": {"patience": 10}},
            "model.decay absent instead of null, model.heights [1] instead of [1, 2]",
        ),
    ],
)
def test_what_differs_is_named(ran, words):
    assert in_words(deviation(ran, PLANNED)) == words


def test_sections_that_the_plan_leaves_out_do_not_count():
    assert deviation(PLANNED, {"model": PLANNED["model"]}) == deviation(PLANNED, {}) == {}


def test_when_to_save_and_stop_is_left_out_and_the_settings_stay_as_they_were():
    settings = {"training": {"patience": 10} | dict.fromkeys(CLOCK, 1.0)}
    assert deciding(settings) == {"training": {"patience": 10}}
    assert set(CLOCK) < set(settings["training"])
