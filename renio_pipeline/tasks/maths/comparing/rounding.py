"""Decimals that are rounded, or cut off, values of something exact.

A decimal stands for an exact value where it shows enough of its digits, and these are right: 0.333333 for 1/3, 3.14159 for
π, but not 0.33 for 1/3, nor 1234567.1 for 1234567.2.
"""

from __future__ import annotations

from fractions import Fraction

from renio_pipeline.tasks.maths.answers import Formula, Number
from renio_pipeline.tasks.maths.comparing.points import approximation, as_fraction
from renio_pipeline.tasks.maths.reading.rationals import CannotEvaluate

ENOUGH = 6  # significant digits
ENOUGH_PLACES, OF_THESE = 6, 4  # or so many decimals, of which so many are significant


def rounded(one: Number, other: Number | Formula) -> bool:
    """Whether the decimal with fewer places is a rounded (or cut off) value of the other."""
    if isinstance(other, Formula):
        exact = _approximate(other, one)
        return exact is not None and _stands_for(one, exact)
    if one.places == other.places:
        return False
    fewer, more = (one, other) if _places(one) < _places(other) else (other, one)
    return _stands_for(fewer, more.value)


def _places(number: Number) -> float:
    return float("inf") if number.places is None else number.places


def _stands_for(shown: Number, exact: Fraction) -> bool:
    assert shown.places is not None
    scale = Fraction(10) ** shown.places
    digits = abs(shown.value) * scale
    significant = len(str(digits.numerator)) if digits.numerator.bit_length() < 4000 else ENOUGH
    if significant < ENOUGH and not (shown.places >= ENOUGH_PLACES and significant >= OF_THESE):
        return False
    size = abs(exact) * scale
    same_sign = (exact < 0) == (shown.value < 0)
    return same_sign and digits in (Fraction(int(size)), Fraction(int(size + Fraction(1, 2))))


def _approximate(formula: Formula, shown: Number) -> Fraction | None:
    if formula.expression.free_symbols:
        return None
    try:
        digits = len(str(abs(shown.value.numerator))) if shown.value.numerator.bit_length() < 4000 else 2000
        return as_fraction(approximation(formula.expression, 20 + digits + max(0, shown.places or 0)))
    except CannotEvaluate:
        return None
