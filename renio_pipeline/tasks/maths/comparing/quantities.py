"""Values with units, as pairs that may be compared without them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import sympy

from renio_pipeline.tasks.maths.answers import Answer, Formula, Group, Number, Quantity, Several, Unit
from renio_pipeline.tasks.maths.comparing.expressions import times
from renio_pipeline.tasks.maths.reading.unit_table import ANGLE, MODULO, NUMBER

_NONE = Unit("")


def in_one_unit(gold: Answer, given: Answer) -> Iterator[tuple[Answer, Answer]]:
    """The pairs of values of which one must be equal.

    Units that convert are converted. A unit that one side lacks, or that is not known, is left out; a percent sign and
    "million" may then count as factors, and degrees stand for radians where the other side has a π.
    """
    one, other = _taken_apart(gold), _taken_apart(given)
    moduli = [unit.name.removeprefix("mod ") if (unit.dimension or "").startswith(MODULO) else None for _, unit in (one, other)]
    if None not in moduli:
        if moduli[0] == moduli[1]:
            yield _residue(one[0], moduli[0]), _residue(other[0], moduli[0])
        return
    if one[1].dimension is not None and one[1].dimension == other[1].dimension:
        yield _scaled(one[0], one[1].factor), _scaled(other[0], other[1].factor)
        return
    yield one[0], other[0]
    if NUMBER in (one[1].dimension, other[1].dimension):
        yield _as_number(*one), _as_number(*other)
    if ANGLE in (one[1].dimension, other[1].dimension) and _NONE in (one[1], other[1]):
        yield _radians(*one), _radians(*other)


def _taken_apart(answer: Answer) -> tuple[Answer, Unit]:
    return (answer.value, answer.unit) if isinstance(answer, Quantity) else (answer, _NONE)


def _as_number(value: Answer, unit: Unit) -> Answer:
    return _scaled(value, unit.factor) if unit.dimension == NUMBER else value


def _radians(value: Answer, unit: Unit) -> Answer:
    if unit.dimension != ANGLE or not isinstance(value, Number):
        return value
    angle = value.value * unit.factor / 180
    return Formula(times(sympy.Rational(angle.numerator, angle.denominator), sympy.pi))


def _scaled(value: Answer, factor: Fraction) -> Answer:
    if factor == 1:
        return value
    if isinstance(value, Number):
        return Number(value.value * factor, value.places and _places(value.places, factor))
    if isinstance(value, Formula):
        return Formula(times(sympy.Rational(factor.numerator, factor.denominator), value.expression))
    if isinstance(value, Group):
        return Group(value.left, value.right, tuple(_scaled(item, factor) for item in value.items))
    if isinstance(value, Several):
        return Several(tuple(_scaled(item, factor) for item in value.items), value.kind)
    return value


def _residue(value: Answer, modulus: str | None) -> Answer:
    if isinstance(value, Number) and value.value.denominator == 1 and modulus and modulus.isdigit() and int(modulus):
        return Number(value.value % int(modulus))
    return value


def _places(places: int, factor: Fraction) -> int | None:
    """Decimals that are shown after a conversion by a power of ten; None: as if it were exact."""
    for shift in range(-12, 13):
        if factor == Fraction(10) ** shift:
            return places - shift
    return None
