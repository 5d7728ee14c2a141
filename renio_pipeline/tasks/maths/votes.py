"""Answers as text for majority votes: what differs only in typography is one text, and so are equal values as far as
it can be told."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import sympy

from renio_pipeline.tasks.maths.answers import (
    Answer,
    Based,
    Choice,
    Clock,
    Combined,
    Dots,
    Formula,
    Group,
    Matrix,
    Number,
    NumberSet,
    Power,
    Quantity,
    Ratio,
    Relation,
    Several,
)
from renio_pipeline.tasks.maths.comparing.expressions import as_expression
from renio_pipeline.tasks.maths.comparing.points import approximation, printed
from renio_pipeline.tasks.maths.comparing.relations import named_value, value_side
from renio_pipeline.tasks.maths.comparing.sets import real_set, set_text
from renio_pipeline.tasks.maths.reading.rationals import CannotEvaluate
from renio_pipeline.tasks.maths.reading.unit_table import NUMBER

_MOST_BITS = 10_000  # of a number that is written in decimal digits
_MOST_OPERATIONS, _MOST_EXPONENT = 60, 12  # of an expression that is expanded
_NOT_EXPANDED = (sympy.Sum, sympy.Integral, sympy.Limit, sympy.Product, sympy.Derivative)


def vote(answer: Answer) -> str:
    """The text of an answer."""
    if isinstance(answer, (Combined, NumberSet, Group, Relation, Several)) and (found := real_set(answer)) is not None:
        return set_text(found)
    match answer:
        case Number(value):
            return fraction_text(value)
        case Power(factor, base, exponent):
            return f"{fraction_text(factor)}*{base}^{exponent}"
        case Based(digits, base):
            return f"{digits}_{base}"
        case Clock(parts, half):
            hour = parts[0] % 12 + 12 * (half == "pm") if half else parts[0]
            return ":".join([str(hour), *(f"{part:02d}" for part in parts[1:])])
        case Choice(letter, _):
            return letter.lower()
        case Quantity(Number(value), unit) if unit.dimension == NUMBER and unit.name != "%":
            return fraction_text(value * unit.factor)
        case Quantity(value, _):
            return vote(value)
        case Ratio(parts):
            return _ratio(parts)
        case Several():
            return _several(answer)
        case Dots():
            return "..."
        case Group(left, right, items):
            return f"{left}{_joined(items)}{right}"
        case NumberSet(name):
            return name
        case Combined(sign, parts):
            texts = [vote(part) for part in parts]
            return f" {sign} ".join(sorted(texts) if sign in (r"\cup", r"\cap") else texts)
        case Relation():
            return _relation(answer)
        case Matrix(rows):
            return f"[{'; '.join(map(_joined, rows))}]"
        case Formula():
            return _formula(answer.expression)
        case _:
            return answer.text


def fraction_text(value: Fraction) -> str:
    """``p/q`` or an integer; very long ones in hexadecimal digits, which Python writes in linear time."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        return f"{value.numerator:x}/{value.denominator:x} (hexadecimal)"
    return str(value)


def _joined(items: Sequence[Answer]) -> str:
    return ", ".join(map(vote, items))


def _several(answer: Several) -> str:
    named = [named_value(item) if isinstance(item, Relation) else None for item in answer.items]
    names = [pair[0] for pair in named if pair]
    if answer.kind == "list" and len(set(names)) == len(named):  # x = 1, y = 2
        return f"({_joined([value for _, value in sorted((pair for pair in named if pair), key=lambda pair: pair[0])])})"
    texts = [vote(item) for item in answer.items]
    if answer.kind == "sequence":
        return ", ".join(texts)
    if len(set(texts)) == 1 and not isinstance(answer.items[0], (Relation, NumberSet)):
        return texts[0]
    return f"{{{', '.join(sorted(set(texts) if answer.kind == 'set' else texts))}}}"


def _ratio(parts: tuple[Answer, ...]) -> str:
    values = [part.value for part in parts if isinstance(part, Number)]
    if len(values) < len(parts) or not values[-1]:
        return ":".join(map(vote, parts))
    if len(values) == 2:
        return fraction_text(values[0] / values[1])
    return ":".join(fraction_text(value / values[-1]) for value in values)


def _relation(answer: Relation) -> str:
    side = value_side(answer, named=True)
    if side is not None:
        return vote(side)
    return (
        _equation(answer)
        or " ".join(part for pair in zip(map(vote, answer.sides), (*answer.signs, ""), strict=True) for part in pair).strip()
    )


def _equation(answer: Relation) -> str | None:
    """A polynomial equation with its terms on one side, the first with the factor 1; None for other relations."""
    left, right = answer.sides[0], answer.sides[-1]
    if answer.signs != ("=",) or not isinstance(left, (Number, Formula)) or not isinstance(right, (Number, Formula)):
        return None
    try:
        difference = as_expression(left) - as_expression(right)
        return f"{sympy.Poly(sympy.expand(difference)).monic().as_expr()} = 0" if _is_small(difference) else None
    except (sympy.polys.polyerrors.BasePolynomialError, ArithmeticError, ValueError, TypeError, NotImplementedError):
        return None


def _formula(expression: sympy.Expr) -> str:
    names = {symbol.name for symbol in expression.free_symbols}
    try:
        if not names - {"i"} and not expression.has(*_NOT_EXPANDED):
            return printed(approximation(expression))
    except CannotEvaluate:
        return str(expression)
    if expression.is_Mul and all(factor.is_Symbol for factor in expression.args):
        return "".join(sorted(factor.name for factor in expression.args))  # AB, as a word
    try:
        return str(sympy.expand(expression) if _is_small(expression) else expression)
    except (ArithmeticError, ValueError, TypeError, NotImplementedError):
        return str(expression)


def _is_small(expression: sympy.Expr) -> bool:
    large = any(abs(power.exp) > _MOST_EXPONENT for power in expression.atoms(sympy.Pow) if power.exp.is_Number)
    return not large and sympy.count_ops(expression) <= _MOST_OPERATIONS and not expression.has(*_NOT_EXPANDED)
