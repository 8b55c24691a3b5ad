"""Printed decimals as intervals: what a rounded number can have been before it was rounded."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Self

# Slack for binary floating point only; every rounding allowance comes from the printed decimals.
EPSILON = 1e-9


@dataclass(frozen=True)
class Interval:
    """A closed interval of reals with exact arithmetic on its ends."""

    lo: float
    hi: float

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.lo - other.hi, self.hi - other.lo)

    def __mul__(self, other: Interval | float) -> Interval:
        ends = other if isinstance(other, Interval) else Interval(other, other)
        products = [a * b for a in (self.lo, self.hi) for b in (ends.lo, ends.hi)]
        return Interval(min(products), max(products))

    def __truediv__(self, other: Interval) -> Interval:
        if other.lo <= 0 <= other.hi:
            return Interval(float("-inf"), float("inf"))
        return self * Interval(1 / other.hi, 1 / other.lo)

    def meets(self, other: Interval) -> bool:
        return self.lo <= other.hi + EPSILON and other.lo <= self.hi + EPSILON


@dataclass(frozen=True)
class Printed:
    """One printed number: its text, its exact decimal value and half a unit of its last decimal.

    A dropped trailing zero only widens the interval, so nothing is ever flagged for having been dropped.
    """

    text: str
    value: Decimal
    half: Decimal
    is_upper_bound: bool = False  # printed as "<0.001"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a decimal such as `8.126`, `1.3e-05` or `<0.001`.

        Raises ValueError for text that is not a finite number.
        """
        digits = text.strip()
        is_bound = digits.startswith("<")
        try:
            value = Decimal(digits.removeprefix("<").strip())
        except InvalidOperation:
            raise ValueError(f"{text!r} is not a number; write digits with a decimal point, such as 8.126") from None
        if not value.is_finite():
            raise ValueError(f"{text!r} is not a finite number")
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        return cls(text=digits, value=value, half=Decimal(5).scaleb(exponent - 1), is_upper_bound=is_bound)

    def scaled(self, factor: int) -> Self:
        """The same number in another unit, its rounding interval scaled with it."""
        return type(self)(self.text, self.value * factor, self.half * factor, self.is_upper_bound)

    def has_decimals(self, number: int) -> bool:
        """Whether it is printed to so many decimals or more."""
        return self.half <= Decimal(5).scaleb(-number - 1)

    @property
    def interval(self) -> Interval:
        if self.is_upper_bound:
            return Interval(0.0, float(self.value))
        return Interval(float(self.value - self.half), float(self.value + self.half))

    def __float__(self) -> float:
        return float(self.value)
