"""Ratios and times of the day, which look alike."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from renio_pipeline.tasks.maths.answers import Answer, Clock, Formula, Number, Ratio
from renio_pipeline.tasks.maths.comparing.expressions import as_expression, same, times

_ONE = Number(Fraction(1))


def same_ratio_or_time(gold: Answer, given: Answer) -> bool:
    """Ratios may be extended, and one of two parts may be a fraction; what reads as a time on both sides is compared as one."""
    if isinstance(gold, Clock) and isinstance(given, Clock):
        return _same_time(gold, given)
    one, other = _parts(gold, given), _parts(given, gold)
    zeros = [[part == 0 for part in parts] for parts in (one, other)]
    if not one or zeros[0] != zeros[1] or all(zeros[0]):
        return False
    return all(same(times(mine, other[0]), times(its, one[0])) for mine, its in zip(one[1:], other[1:], strict=True))


def _parts(answer: Answer, other: Answer) -> list[Any]:
    """The parts of a ratio; [] of what is none. A fraction is one, and what may be a time, beside a ratio."""
    parts: tuple[Answer, ...] = ()
    if isinstance(answer, Clock) and not answer.half and isinstance(other, Ratio):
        parts = tuple(Number(Fraction(part)) for part in answer.parts)
    elif isinstance(answer, Ratio):
        parts = answer.parts
    elif isinstance(answer, (Number, Formula)) and isinstance(other, Ratio):
        parts = (answer, _ONE)
    return [as_expression(part) for part in parts] if all(isinstance(part, (Number, Formula)) for part in parts) else []


def _same_time(gold: Clock, given: Clock) -> bool:
    """1:00 pm is 13:00; a time that does not say its half of the day may be in either."""
    if gold.parts[1:] != given.parts[1:] or len(gold.parts) != len(given.parts):
        return False
    hours = [clock.parts[0] % 12 + 12 * (clock.half == "pm") if clock.half else clock.parts[0] for clock in (gold, given)]
    either = bool(gold.half) != bool(given.half) and gold.parts[0] == given.parts[0]
    return hours[0] == hours[1] or either
