"""Expressions at points, to any number of digits. Nothing here grows without bound."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath
from sympy.core.function import AppliedUndef

from renio_pipeline.tasks.maths.reading.rationals import CannotEvaluate, Unknown, rational

CONTEXT = mpmath.MPContext()  # of its own: its precision changes
_MOST_SIZE = 40_000  # digits of any value before or after the decimal point
_MOST_ARGUMENT = 1e6  # of functions that grow faster than powers
_MOST_TERMS = 2000  # of all sums and products
_CONSTANTS = {"Pi": "pi", "Exp1": "e", "GoldenRatio": "phi", "EulerGamma": "euler"}
_FAST = {"exp", "gamma", "factorial", "binomial", "sinh", "cosh"}
_FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc",
    "asin": "asin", "acos": "acos", "atan": "atan", "acot": "acot", "asec": "asec", "acsc": "acsc",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "coth": "coth", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh",
    "exp": "exp", "Abs": "fabs", "floor": "floor", "ceiling": "ceil", "gamma": "gamma", "factorial": "factorial",
    "binomial": "binomial", "re": "re", "im": "im", "conjugate": "conj", "arg": "arg", "sign": "sign", "Mod": "fmod",
}  # fmt: skip


def drawn(key: str, low: int, high: int, below: int) -> Fraction:
    """A multiple of ``1 / below`` between two integers that depends on the key alone."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return low + Fraction(1 + number % max(1, (high - low) * below - 1), below)


class Evaluation:
    """One pass over an expression of sympy at a point. Symbols without a value there have one of their own; i is imaginary."""

    def __init__(self, point: Mapping[str, Fraction], real: bool, digits: int) -> None:
        """``real``: every value on the way must be real, so that roots of negative numbers are undefined."""
        self._point, self._real, self._digits = point, real, digits
        self._largest = 0.0
        self._terms = 0  # of sums and products, that were computed

    def span(self, expression: Any) -> int:
        """How many digits the largest of the values met has before (or the smallest after) the decimal point."""
        self.value(expression)
        return int(self._largest)

    def value(self, expression: Any) -> Any:
        """A number of mpmath. Raises CannotEvaluate."""
        try:
            with CONTEXT.workdps(self._digits):
                return self._value(expression)
        except (ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError, CONTEXT.NoConvergence) as error:
            raise CannotEvaluate from error

    def _value(self, node: Any) -> Any:
        found = self._of(node)
        if not CONTEXT.isfinite(found) or (self._real and isinstance(found, CONTEXT.mpc) and found.imag):
            raise CannotEvaluate
        if self._real and isinstance(found, CONTEXT.mpc):
            found = found.real
        size = abs(float(CONTEXT.mag(found))) * 0.302 if found else 0.0
        if size > _MOST_SIZE:
            raise CannotEvaluate
        self._largest = max(self._largest, size)
        return found

    def _of(self, node: Any) -> Any:
        if node.is_Rational:
            return CONTEXT.mpf(int(node.p)) / int(node.q)
        if node.is_Symbol:
            return self._symbol(node.name)
        name = type(node).__name__
        if name in _CONSTANTS:
            return +getattr(CONTEXT, _CONSTANTS[name])
        if name == "ImaginaryUnit":
            return self._imaginary()
        if name in ("Sum", "Product"):
            return self._series(node)
        return self._applied(name, node, [self._value(argument) for argument in node.args])

    def _applied(self, name: str, node: Any, values: list[Any]) -> Any:
        if name == "Add":
            return CONTEXT.fsum(values)
        if name == "Mul":
            return CONTEXT.fprod(values)
        if name == "Pow":
            return self._power(*values)
        if name == "UnevaluatedExpr":
            return values[0]
        if name == "log":
            return CONTEXT.log(values[0]) / (CONTEXT.log(values[1]) if len(values) > 1 else 1)
        if name in ("Max", "Min"):
            return (max if name == "Max" else min)(values)
        if name in _FAST and max(map(abs, values)) > _MOST_ARGUMENT:
            raise CannotEvaluate
        if name in _FUNCTIONS:
            return getattr(CONTEXT, _FUNCTIONS[name])(*values)
        if isinstance(node, AppliedUndef):  # f(x): any number that its arguments determine
            return self._symbol(f"{name}({', '.join(CONTEXT.nstr(value, 12) for value in values)})")
        raise Unknown

    def _symbol(self, name: str) -> Any:
        value = self._point.get(name)
        if value is None and name == "i" and not self._real:
            return self._imaginary()
        if value is None:
            value = drawn(name, 1, 3, 991)
        return CONTEXT.mpf(value.numerator) / value.denominator

    def _imaginary(self) -> Any:
        if self._real:
            raise CannotEvaluate
        return CONTEXT.mpc(0, 1)

    def _power(self, base: Any, exponent: Any) -> Any:
        if not base and (not exponent or isinstance(exponent, CONTEXT.mpc) or exponent < 0):
            raise CannotEvaluate
        if base and abs(exponent) * (abs(float(CONTEXT.mag(base))) + 1) * 0.302 > _MOST_SIZE:
            raise CannotEvaluate
        return base**exponent

    def _series(self, node: Any) -> Any:
        if len(node.limits) != 1 or len(node.limits[0]) != 3:
            raise Unknown
        index, first, last = node.limits[0][0], *map(rational, node.limits[0][1:])
        if first is None or last is None or first.denominator * last.denominator != 1 or last - first >= _MOST_TERMS:
            raise Unknown
        around, terms = self._point, []
        for value in range(int(first), int(last) + 1):
            self._terms += 1
            if self._terms > _MOST_TERMS:
                raise Unknown
            self._point = {**around, index.name: Fraction(value)}
            terms.append(self._value(node.function))
        self._point = around
        return CONTEXT.fsum(terms) if type(node).__name__ == "Sum" else CONTEXT.fprod(terms)
