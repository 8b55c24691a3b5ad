from decimal import Decimal

import pytest

from analysis.audit.printed import Interval, Printed


def test_half_unit_follows_the_printed_decimals():
    assert Printed.parse("8.126").half == Decimal("0.0005")
    assert Printed.parse("8.1260").half == Decimal("0.00005")
    assert Printed.parse("12").half == Decimal("0.5")
    assert Printed.parse("1.3e-05").half == Decimal("5e-7")


def test_upper_bound_spans_zero_to_the_bound():
    assert Printed.parse("<0.001").interval == Interval(0.0, 0.001)


def test_scaling_scales_the_rounding_too():
    assert Printed.parse("0.0812").scaled(100).interval == Interval(8.115, 8.125)


@pytest.mark.parametrize("text", ["", "abc", "1,5", "nan", "inf", "8.1 %"])
def test_text_that_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="number"):
        Printed.parse(text)


def test_interval_arithmetic_covers_every_combination():
    a, b = Interval(1.0, 2.0), Interval(-1.0, 3.0)
    assert a - b == Interval(-2.0, 3.0)
    assert a * b == Interval(-2.0, 6.0)
    assert a / Interval(2.0, 4.0) == Interval(0.25, 1.0)
    assert (a / b).hi == float("inf")


def test_touching_intervals_meet_and_separated_ones_do_not():
    assert Interval(0, 1).meets(Interval(1, 2))
    assert not Interval(0, 1).meets(Interval(1.001, 2))
