"""What values at points say of expressions: whether one is zero, whether two have one ratio; and values as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from renio_pipeline.tasks.maths.comparing.evaluation import CONTEXT, Evaluation, drawn
from renio_pipeline.tasks.maths.reading.rationals import CannotEvaluate, Unknown

MOST_DIGITS = 4000  # of precision
_DIGITS = 50  # behind the largest value that is met
_SHRINK = 25  # digits by which noise shrinks, or grows, where it is computed with twice as many
_RANGES = [(0, 1, 997), (1, 4, 991), (-3, 3, 983), (5, 40, 977), (1, 8, 1), (-9, 12, 1), (2, 20, 1)]  # low, high, denominator
_NEAR = 720720  # a denominator that all numbers up to 16 divide
_MOST_SHOWN = 300  # digits before or after the decimal point

Point = Mapping[str, Fraction]


def points(names: set[str]) -> Iterator[dict[str, Fraction]]:
    """Where to compare expressions of these symbols: between 0 and 1, above, below, and at integers; the same every time."""
    for kind, (low, high, below) in enumerate(_RANGES):
        yield {name: drawn(f"{kind}/{name}", low, high, below) for name in names}


def vanishes(expression: Any, point: Point, *, real: bool) -> bool:
    """Whether an expression is zero at a point: whether its value shrinks as it is computed with more digits.

    Raises:
        CannotEvaluate: it has no value there (with ``real``: no real one).
    """
    rough, fine = (Evaluation(point, real, digits).value(expression) for digits in (30, 60))
    if fine and abs(rough - fine) < abs(fine) * CONTEXT.mpf(10) ** -10:
        return False  # noise would not be the same twice
    digits = _enough(Evaluation(point, real, 15).span(expression))
    values: list[Any] = []
    for factor in (1, 2, 4):
        value = abs(Evaluation(point, real, factor * digits).value(expression))
        if values and values[-1]:
            return bool(value <= values[-1] * CONTEXT.mpf(10) ** -_SHRINK)
        values.append(value)
    return True


def same_ratio(one: Any, other: Any, first: Point, second: Point, *, positive: bool) -> bool:
    """Whether ``one / other`` is the same (with ``positive`` a positive) real number at both points.

    Raises:
        CannotEvaluate: one of them has no real value at one of the points, or is zero there.
    """
    pairs = [(one, first), (other, second), (one, second), (other, first)]
    digits = _enough(max(Evaluation(point, True, 15).span(expression) for expression, point in pairs))
    a, b, c, d = (Evaluation(point, True, 2 * digits).value(expression) for expression, point in pairs)
    if not (a and b and c and d):
        raise CannotEvaluate
    if positive and (a > 0) != (d > 0):
        return False
    with CONTEXT.workdps(2 * digits):
        return bool(abs(a * b - c * d) <= abs(a * b) * CONTEXT.mpf(10) ** -digits)


def approximation(expression: Any, digits: int = 30) -> Any:
    """The value of an expression without symbols but i: an mpmath number, real where it can be. Raises CannotEvaluate."""
    for real in (False,) if expression.free_symbols else (True, False):
        try:
            span = Evaluation({}, real, 15).span(expression)
        except Unknown:
            raise
        except CannotEvaluate:
            continue
        return Evaluation({}, real, _enough(span) - _DIGITS + digits).value(expression)
    raise CannotEvaluate


def as_fraction(value: Any) -> Fraction | None:
    """The exact value of an mpmath number; None where it is not real."""
    if isinstance(value, CONTEXT.mpc):
        return None
    sign, mantissa, exponent, _ = value._mpf_
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def printed(value: Any) -> str:
    """A number of ``approximation``: as a fraction where it is near one, else in twenty digits behind its size."""
    if isinstance(value, CONTEXT.mpc):
        noise = abs(value) * CONTEXT.mpf(10) ** -_SHRINK
        parts = [printed(part if abs(part) > noise else CONTEXT.zero) for part in (value.real, value.imag)]
        return parts[0] if parts[1] == "0" else f"{parts[0]} + {parts[1]}*i"
    size = int(CONTEXT.mag(value) * 0.302) if value else 0
    exact = as_fraction(value) if abs(size) < _MOST_SHOWN else None
    if exact is not None:
        near = Fraction(round(exact * _NEAR), _NEAR)
        if abs(exact - near) < Fraction(10) ** (size - _SHRINK):
            return str(near)
    return str(CONTEXT.nstr(value, 20 + min(max(0, size), _MOST_SHOWN)))


def _enough(span: int) -> int:
    if span > MOST_DIGITS:
        raise CannotEvaluate
    return _DIGITS + span
