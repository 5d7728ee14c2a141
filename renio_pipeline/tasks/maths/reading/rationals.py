"""Expressions as rational numbers, exactly. Each power, factorial and binomial is estimated before it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy

from renio_pipeline.tasks.maths.reading.size import MOST_BITS

_MOST_FACTORIAL = 12_000


class CannotEvaluate(Exception):
    """Undefined, too large, or made of what has no value."""


class Unknown(CannotEvaluate):
    """Made of what is no function here, such as an integral."""


def rational(expression: Any) -> Fraction | None:
    """The exact value; None where it is not rational as it stands, or its numbers are too large."""
    try:
        return _exact(expression)
    except (CannotEvaluate, ZeroDivisionError, RecursionError):
        return None


def _exact(node: Any) -> Fraction:
    if node.is_Rational:
        return Fraction(int(node.p), int(node.q))
    name = type(node).__name__
    if name == "UnevaluatedExpr":
        return _exact(node.args[0])
    if name not in ("Add", "Mul", "Pow") and name not in _FUNCTIONS:
        raise CannotEvaluate
    values = [_exact(argument) for argument in node.args]
    if name == "Add":
        return _bounded(sum(values, Fraction(0)))
    if name == "Mul":
        product = Fraction(1)
        for value in values:
            product = _bounded(product * value)
        return product
    if name == "Pow":
        return _power(*values)
    return Fraction(_FUNCTIONS[name](*values))


def _factorial(value: Fraction) -> int:
    return math.factorial(_small(value, _MOST_FACTORIAL))


def _binomial(above: Fraction, below: Fraction) -> int:
    return math.comb(_small(above, MOST_BITS), _small(below, MOST_BITS))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "factorial": _factorial, "binomial": _binomial, "Abs": abs, "floor": math.floor, "ceiling": math.ceil,
    "Mod": lambda value, divisor: value % divisor, "Max": max, "Min": min,
}  # fmt: skip


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > 2 * MOST_BITS:
        raise CannotEvaluate
    return value


def _small(value: Fraction, most: int) -> int:
    if value.denominator != 1 or not 0 <= value <= most:
        raise CannotEvaluate
    return int(value)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    root = exponent.denominator
    if abs(exponent.numerator) * _bits(base) > MOST_BITS or root > 64 or (base < 0 and root > 1) or (not base and exponent < 0):
        raise CannotEvaluate
    if root > 1:
        base = Fraction(_root(base.numerator, root), _root(base.denominator, root))
    return base**exponent.numerator


def _root(value: int, degree: int) -> int:
    """Raises CannotEvaluate unless it is an integer."""
    found, exact = sympy.integer_nthroot(value, degree)
    if not exact:
        raise CannotEvaluate
    return int(found)
