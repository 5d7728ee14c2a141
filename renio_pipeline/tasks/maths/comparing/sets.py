"""Sets of real numbers: intervals, unions, and inequalities that say the same."""

from __future__ import annotations

from typing import Any

import sympy
from sympy import S

from renio_pipeline.tasks.maths.answers import Answer, Combined, Formula, Group, Number, NumberSet, Relation, Several
from renio_pipeline.tasks.maths.comparing.points import approximation, as_fraction
from renio_pipeline.tasks.maths.reading.rationals import CannotEvaluate

_POSITIVE = sympy.Interval.open(0, S.Infinity)
_SETS = {
    "R^+": _POSITIVE, "R_+": _POSITIVE, "R^-": sympy.Interval.open(-S.Infinity, 0),
    "Z^+": S.Naturals, "N^+": S.Naturals, "N^*": S.Naturals, "N_+": S.Naturals, "Z_+": S.Naturals,
    "empty": S.EmptySet, "R": S.Reals, "Z": S.Integers, "N": S.Naturals, "Q": S.Rationals, "C": S.Complexes,
}  # fmt: skip
_MOST_PARTS = 40
_DIGITS = 30  # of irrational endpoints: more than any two of them share


def same_set(one: Answer, other: Answer) -> bool:
    """Whether both are sets of real numbers, and the same; of inequalities in the same name."""
    sets, names = [], []
    for answer in (one, other):
        found, name = _as_set(answer)
        if found is None:
            return False
        sets.append(found)
        names.append(name)
    if not any(isinstance(answer, (Combined, NumberSet, Group, Relation)) for answer in (one, other)):
        return False  # mere lists were compared
    if None not in names and names[0] != names[1]:
        return False
    try:
        return bool(sets[0] == sets[1] or sets[0].symmetric_difference(sets[1]) is S.EmptySet)
    except (TypeError, ValueError, NotImplementedError):
        return False


def real_set(answer: Answer) -> Any | None:
    """The set of real numbers that an inequality, an interval or a union says; None where it says something else."""
    relations = answer.items if isinstance(answer, Several) else (answer,)
    equations = [isinstance(item, Relation) and set(item.signs) == {"="} for item in relations]
    if any(equations) or (isinstance(answer, Several) and not any(isinstance(item, Relation) for item in answer.items)):
        return None
    return _as_set(answer)[0]


def set_text(found: Any) -> str:
    """A set in the usual notation, its parts in one order."""
    if found is S.EmptySet:
        return "{}"
    if isinstance(found, sympy.Interval):
        left, right = "(" if found.left_open else "[", ")" if found.right_open else "]"
        return f"{left}{_endpoint(found.start)}, {_endpoint(found.end)}{right}"
    if isinstance(found, sympy.FiniteSet):
        return f"{{{', '.join(sorted(map(_endpoint, found)))}}}"
    if isinstance(found, sympy.Union):
        return " u ".join(sorted(map(set_text, found.args)))
    return str(found)


def _endpoint(value: Any) -> str:
    return str(value if value.is_infinite or value.q < 10 ** (_DIGITS // 4) else value.evalf(_DIGITS // 3))


def _as_set(answer: Answer) -> tuple[Any | None, str | None]:
    """The set, and the name of its variable where an inequality says one."""
    try:
        if isinstance(answer, Relation):
            return _solutions(answer)
        if isinstance(answer, Several) and answer.kind == "list" and any(isinstance(i, Relation) for i in answer.items):
            return _joined(answer)
        return _set(answer), None
    except (TypeError, ValueError, NotImplementedError):
        return None, None


def _set(answer: Answer) -> Any | None:
    if isinstance(answer, NumberSet):
        return _SETS.get(answer.name)
    if isinstance(answer, Group) and len(answer.items) == 2:
        low, high = map(_real, answer.items)
        closed = (answer.left, answer.right) == ("[", "]")
        if low is None or high is None or low > high or (low == high and not closed):
            return None  # a point
        return sympy.Interval(low, high, answer.left == "(", answer.right == ")")
    if isinstance(answer, Several) and answer.kind == "set" and len(answer.items) <= _MOST_PARTS:
        values = [_real(item) for item in answer.items]
        return None if None in values else sympy.FiniteSet(*values)
    if isinstance(answer, Combined) and answer.sign != "|" and len(answer.parts) <= _MOST_PARTS:
        parts = [_set(part) for part in answer.parts]
        if any(part is None for part in parts):
            return None
        if answer.sign == r"\setminus":
            return sympy.Complement(parts[0], sympy.Union(*parts[1:]))
        return (sympy.Union if answer.sign == r"\cup" else sympy.Intersection)(*parts)
    return None


def _joined(answer: Several) -> tuple[Any | None, str | None]:
    """``x < 1 or x > 3`` as a union; as an intersection where the union says nothing: ``x > 1 and x < 3``."""
    found = [_solutions(item) if isinstance(item, Relation) else (None, None) for item in answer.items[:_MOST_PARTS]]
    sets, names = [one for one, _ in found], {name for _, name in found}
    if any(one is None for one in sets) or len(names) != 1 or all("=" in item.signs for item in answer.items):  # type: ignore[union-attr]
        return None, None
    union = sympy.Union(*sets)
    return (sympy.Intersection(*sets) if union == S.Reals else union), names.pop()


def _solutions(relation: Relation) -> tuple[Any | None, str | None]:
    """The real numbers that an inequality leaves to its one name; ``x \\in S`` is S."""
    named = [side for side, name in enumerate(relation.names) if name and _symbol(relation.sides[side])]
    if relation.signs == (r"\in",) and named == [0]:
        return _set(relation.sides[1]), _symbol(relation.sides[0])
    if len(named) != 1 or len(relation.sides) > 3:
        return None, None
    at = named[0]
    found: Any = S.Reals
    for index, sign in enumerate(relation.signs):
        if at not in (index, index + 1):
            return None, None
        bound = _real(relation.sides[index + 1 if index == at else index])
        part = None if bound is None else _half_line(sign, bound, name_first=index == at)
        if part is None:
            return None, None
        found = sympy.Intersection(found, part)
    return found, _symbol(relation.sides[at])


def _half_line(sign: str, bound: Any, *, name_first: bool) -> Any | None:
    below = (sign in ("<", r"\leq")) == name_first
    strict = sign in ("<", ">")
    if sign == "=":
        return sympy.FiniteSet(bound)
    if sign == r"\neq":
        return sympy.Complement(S.Reals, sympy.FiniteSet(bound))
    if sign not in ("<", ">", r"\leq", r"\geq"):
        return None
    return sympy.Interval(-S.Infinity, bound, True, strict) if below else sympy.Interval(bound, S.Infinity, strict, True)


def _symbol(answer: Answer) -> str | None:
    if isinstance(answer, Formula) and answer.expression.is_Symbol:
        return str(answer.expression.name)
    return None


def _real(answer: Answer) -> Any | None:
    """An endpoint: exact where it is rational, else to so many digits; None: it is no real number."""
    if isinstance(answer, Number):
        return sympy.Rational(answer.value.numerator, answer.value.denominator)
    if not isinstance(answer, Formula) or answer.expression.free_symbols:
        return None
    if answer.expression in (S.Infinity, S.NegativeInfinity):
        return answer.expression
    try:
        exact = as_fraction(approximation(answer.expression, _DIGITS))
    except CannotEvaluate:
        return None
    if exact is None:
        return None
    near = exact.limit_denominator(10 ** (_DIGITS // 2))
    return sympy.Rational(near.numerator, near.denominator)
