"""Equations and inequalities: the same up to a factor, the order of their sides, and the name of what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import sympy

from renio_pipeline.tasks.maths.answers import Answer, Formula, Number, Relation
from renio_pipeline.tasks.maths.comparing.expressions import as_expression, times
from renio_pipeline.tasks.maths.comparing.points import points, same_ratio
from renio_pipeline.tasks.maths.reading.rationals import CannotEvaluate

_FLIPPED = {"<": ">", ">": "<", r"\leq": r"\geq", r"\geq": r"\leq"}
_ENOUGH = 3


def value_side(relation: Relation, *, named: bool) -> Answer | None:
    """What an equation says of a name: 5 of ``x = 5`` or ``x = 2 + 3 = 5``; None where it says nothing.

    ``named``: a side must be a mere name. Otherwise the last side counts also of ``x + y = 12``.
    """
    if not set(relation.signs) <= {"=", r"\in", r"\equiv"}:
        return None
    if relation.names[-1] and not relation.names[0]:
        return relation.sides[0]
    stated = relation.names[0] or all(isinstance(side, Number) for side in relation.sides)  # 5! = 120
    return relation.sides[-1] if stated or not (named or _is_to_be_solved(relation)) else None


def _is_to_be_solved(relation: Relation) -> bool:
    """Whether an equation says nothing of its left side, but of its symbols: ``2x = 6``, ``x - 2y = 0``."""
    left, right = relation.sides[0], relation.sides[-1]
    if isinstance(right, Number) and not right.value:
        return True
    symbols = left.expression.free_symbols if isinstance(left, Formula) else ()
    return len(symbols) == 1 and bool(left.expression.is_polynomial(*symbols))  # type: ignore[union-attr]


def named_value(relation: Relation) -> tuple[str, Answer] | None:
    """The symbol and the value of ``x = 5``; None for other relations."""
    side = value_side(relation, named=True)
    name = next((s for s, named in zip(relation.sides, relation.names, strict=True) if named and isinstance(s, Formula)), None)
    return None if side is None or name is None else (str(name.expression), side)


def same_relation(one: Relation, other: Relation, equal: Callable[[Answer, Answer], bool]) -> bool:
    """Whether two relations say the same of the same symbols."""
    left, right = _links(one), _links(other)
    if len(left) != len(right):
        return False
    return all(any(_same_link(link, candidate, equal) for candidate in right) for link in left) and all(
        any(_same_link(link, candidate, equal) for link in left) for candidate in right
    )


Link = tuple[Answer, str, Answer]


def _links(relation: Relation) -> list[Link]:
    """``a < b < c`` as ``a < b`` and ``b < c``, all with smaller sides first; ``x = a = b`` as ``x = b``."""
    if set(relation.signs) == {"="} and len(relation.signs) > 1 and relation.names[0]:
        return [(relation.sides[0], "=", relation.sides[-1])]
    links = zip(relation.sides, relation.signs, relation.sides[1:], strict=False)
    return [(b, _FLIPPED[sign], a) if sign in (">", r"\geq") else (a, sign, b) for a, sign, b in links]


def _same_link(one: Link, other: Link, equal: Callable[[Answer, Answer], bool]) -> bool:
    if one[1] != other[1]:
        return False
    if equal(one[0], other[0]) and equal(one[2], other[2]):
        return True
    swaps = one[1] in ("=", r"\neq")
    if swaps and equal(one[0], other[2]) and equal(one[2], other[0]):
        return True
    if one[1] not in ("=", r"\neq", "<", r"\leq"):
        return False
    differences = []
    for smaller, _, larger in (one, other):
        if not isinstance(smaller, (Number, Formula)) or not isinstance(larger, (Number, Formula)):
            return False
        negative = times(sympy.Integer(-1), as_expression(larger))
        differences.append(sympy.Add(as_expression(smaller), negative, evaluate=False))
    return _proportional(differences[0], differences[1], positive=not swaps)


def _proportional(one: Any, other: Any, *, positive: bool) -> bool:
    """Whether the quotient is the same number (with ``positive`` a positive one) at every point."""
    names = {symbol.name for symbol in one.free_symbols}
    if not names or names != {symbol.name for symbol in other.free_symbols}:
        return False
    met = 0
    for first, second in pairwise(points(names)):
        try:
            if not same_ratio(one, other, first, second, positive=positive):
                return False
        except CannotEvaluate:
            continue
        met += 1
    return met >= _ENOUGH
