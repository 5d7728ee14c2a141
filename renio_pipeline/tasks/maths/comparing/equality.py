"""Whether two answers are equal: exactly where they are exact, and rounded decimals relative to their size.

The relation is symmetric but for equations: of a response ``x + y = 12`` the right side counts where no equation was asked for.
"""

from __future__ import annotations

from fractions import Fraction

from renio_pipeline.tasks.maths.answers import (
    Answer,
    Based,
    Choice,
    Clock,
    Combined,
    Formula,
    Group,
    Matrix,
    Number,
    Power,
    Quantity,
    Ratio,
    Relation,
    Several,
    Text,
    Word,
)
from renio_pipeline.tasks.maths.comparing.expressions import as_expression, same
from renio_pipeline.tasks.maths.comparing.lists import in_any_order, in_order, several
from renio_pipeline.tasks.maths.comparing.quantities import in_one_unit
from renio_pipeline.tasks.maths.comparing.ratios import same_ratio_or_time
from renio_pipeline.tasks.maths.comparing.relations import same_relation, value_side
from renio_pipeline.tasks.maths.comparing.rounding import rounded
from renio_pipeline.tasks.maths.comparing.sets import same_set
from renio_pipeline.tasks.maths.comparing.words import same_choice, same_words
from renio_pipeline.tasks.maths.reading.numbers import value_of

_SINGLE = (Number, Power, Based, Formula)


def equal(gold: Answer, given: Answer) -> bool:
    """Whether a response's answer is the row's."""
    if gold == given:
        return True
    either = (gold, given)
    if _any(either, Choice):
        return same_choice(gold, given, equal)
    if _any(either, Relation):
        return _relations(gold, given) or same_set(gold, given)
    if _any(either, Quantity):
        return any(equal(one, other) for one, other in in_one_unit(gold, given))
    if _any(either, Word, Text):
        return same_words(gold, given)
    if _any(either, Several):
        return several(gold, given, equal) or same_words(gold, given) or same_set(gold, given)
    if _any(either, Ratio, Clock):
        return same_ratio_or_time(gold, given)
    if isinstance(gold, _SINGLE) and isinstance(given, _SINGLE):
        return _single(gold, given)
    return _parts(gold, given) or same_set(gold, given)


def _any(either: tuple[Answer, Answer], *kinds: type) -> bool:
    return isinstance(either[0], kinds) or isinstance(either[1], kinds)


def _parts(gold: Answer, given: Answer) -> bool:
    """Answers of parts, by their parts."""
    if isinstance(gold, Matrix) and isinstance(given, Matrix):
        return len(gold.rows) == len(given.rows) and all(
            in_order(*rows, equal) for rows in zip(gold.rows, given.rows, strict=True)
        )
    if isinstance(gold, Group) and isinstance(given, Group):
        brackets = (gold.left, gold.right) == (given.left, given.right) or len(gold.items) > 2
        return brackets and in_order(gold.items, given.items, equal)
    if isinstance(gold, Combined) and isinstance(given, Combined) and gold.sign == given.sign:
        return (in_any_order if gold.sign in (r"\cup", r"\cap") else in_order)(gold.parts, given.parts, equal)
    return False


def _relations(gold: Answer, given: Answer) -> bool:
    if isinstance(gold, Relation) and isinstance(given, Relation):
        return same_relation(gold, given, equal)
    if isinstance(gold, Relation):
        side = value_side(gold, named=True)
        return side is not None and equal(side, given)
    assert isinstance(given, Relation)
    side = value_side(given, named=False)
    return side is not None and equal(gold, side)


def _single(gold: Answer, given: Answer) -> bool:
    if isinstance(gold, Based) or isinstance(given, Based):
        return _based(gold, given)
    if isinstance(gold, Number) and isinstance(given, Number):
        return gold.value == given.value or rounded(gold, given)
    if isinstance(gold, Power) or isinstance(given, Power):
        return False  # equal ones have one form
    for shown, other in ((gold, given), (given, gold)):
        if isinstance(shown, Number) and shown.places is not None and isinstance(other, Formula) and rounded(shown, other):
            return True
    return same(as_expression(gold), as_expression(given))


def _based(gold: Answer, given: Answer) -> bool:
    """Two bases: the values. One base: the digits, since the other's base is understood."""
    if isinstance(gold, Based) and isinstance(given, Based):
        value = value_of(gold)
        return value is not None and value == value_of(given)
    one, other = (gold, given) if isinstance(gold, Based) else (given, gold)
    if not isinstance(one, Based) or not isinstance(other, Number) or other.places is not None:
        return False
    return one.digits.isdigit() and other.value == Fraction(one.digits)
