"""What an answer can be, once it has been read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Number:
    """A rational number. ``places``: decimals that are shown, of a decimal number; None: it is exact as it stands."""

    value: Fraction
    places: int | None = None


@dataclass(frozen=True, slots=True)
class Power:
    """``factor * base**exponent``, for powers that are too large to be written out."""

    factor: Fraction
    base: int
    exponent: int


@dataclass(frozen=True, slots=True)
class Based:
    """Digits in a base that is named, without leading zeros."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of the day, or a duration, as it is shown; ``half`` is am or pm."""

    parts: tuple[int, ...]
    half: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """Letters that are no product of symbols. ``text`` is in lower case, without blanks and punctuation."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of a multiple choice, and what stands there: (B) 12."""

    letter: str
    content: Answer


@dataclass(frozen=True, slots=True)
class Formula:
    """Any other single value: an expression of sympy, not evaluated."""

    expression: Any


@dataclass(frozen=True, slots=True)
class Unit:
    """``dimension`` None: a unit that is not known, and which is not compared."""

    name: str
    dimension: str | None = None
    factor: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with its unit; a percent sign is one."""

    value: Answer
    unit: Unit


@dataclass(frozen=True, slots=True)
class Ratio:
    parts: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Several:
    """Values in any order: a bare list or a set. A sequence is one with dots (``Dots``), where the order counts."""

    items: tuple[Answer, ...]
    kind: Literal["list", "set", "sequence"]


@dataclass(frozen=True, slots=True)
class Dots:
    """And so on."""


@dataclass(frozen=True, slots=True)
class Group:
    """Values in order between brackets: a point, a tuple or an interval."""

    left: str
    right: str
    items: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class NumberSet:
    """The empty set, or one of N, Z, Q, R and C."""

    name: str


@dataclass(frozen=True, slots=True)
class Combined:
    r"""Sets joined by ``sign``: \cup, \cap or \setminus."""

    sign: str
    parts: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    r"""``sides`` and the signs between them: =, <, >, \leq, \geq, \neq or \in."""

    sides: tuple[Answer, ...]
    signs: tuple[str, ...]
    names: tuple[bool, ...]  # of the sides: it is a mere name, such as x, f(x) or "area"


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """What nothing else reads: only the same text is equal to it. ``sound`` is False where it seems to be a slip of LaTeX."""

    text: str
    sound: bool


Answer = (
    Number | Power | Based | Clock | Word | Choice | Formula | Quantity | Ratio | Several | Dots | Group | NumberSet | Combined
    | Relation | Matrix | Text
)  # fmt: skip


def texts(answer: Answer) -> Iterator[Text]:
    """The parts of an answer that nothing else could read."""
    waiting: list[Any] = [answer]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Text):
            yield part
        elif isinstance(part, tuple):
            waiting += part
        elif isinstance(part, Answer):
            waiting += [getattr(part, field.name) for field in fields(part)]
