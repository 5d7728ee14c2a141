"""Whether two expressions are the same: their difference vanishes at points, to as many digits as are asked for."""

from __future__ import annotations

from typing import Any

import sympy

from renio_pipeline.tasks.maths.answers import Answer, Formula, Number
from renio_pipeline.tasks.maths.comparing.points import points, vanishes
from renio_pipeline.tasks.maths.reading.rationals import CannotEvaluate, Unknown, rational

_ENOUGH = 3  # points at which both have a value
_MOST_NUMBER = 1000  # in what math-verify compares


def as_expression(answer: Answer) -> Any:
    """A number or formula as an expression of sympy."""
    if isinstance(answer, Number):
        return sympy.Rational(answer.value.numerator, answer.value.denominator)
    assert isinstance(answer, Formula)
    return answer.expression


def times(one: Any, other: Any) -> Any:
    """The product, not evaluated."""
    return sympy.Mul(one, other, evaluate=False)


def same(one: Any, other: Any) -> bool:
    """Whether two expressions are equal wherever both have a value."""
    if one == other:
        return True
    difference = sympy.Add(one, times(sympy.Integer(-1), other), evaluate=False)
    names = {symbol.name for symbol in difference.free_symbols}
    try:
        for real in (False,) if "i" in names or difference.has(sympy.I) else (True, False):
            if (found := _vanishes(difference, names if real else names - {"i"}, real=real)) is not None:
                return found
    except Unknown:
        return _by_math_verify(one, other)
    return False


def _vanishes(difference: Any, names: set[str], *, real: bool) -> bool | None:
    """None: there are too few points at which it has a value."""
    wanted = _ENOUGH if names else 1
    met = 0
    for point in points(names) if names else [{}]:
        try:
            if not vanishes(difference, point, real=real):
                return False
        except Unknown:
            raise
        except CannotEvaluate:
            continue
        met += 1
    return True if met >= wanted else None


def _by_math_verify(one: Any, other: Any) -> bool:
    """Integrals, limits and the like, where their numbers are small enough for sympy to work with."""
    from math_verify import verify

    nodes = sympy.preorder_traversal(sympy.Tuple(one, other))
    if not all(map(_is_small, nodes)):
        return False
    return bool(verify([one], [other], timeout_seconds=None))


def _is_small(node: Any) -> bool:
    if isinstance(node, sympy.Product) or (isinstance(node, sympy.Derivative) and not node.expr.has(*node.variables)):
        return False  # a derivative of a mere symbol is not meant to be zero
    if not isinstance(node, (sympy.Rational, sympy.Pow, sympy.factorial, sympy.binomial)) or node.free_symbols:
        return True
    value = rational(node)
    if value is None:
        return isinstance(node, sympy.Pow) and all(map(_is_small, node.args))  # a root, or with π
    return max(abs(value.numerator), value.denominator) <= _MOST_NUMBER
