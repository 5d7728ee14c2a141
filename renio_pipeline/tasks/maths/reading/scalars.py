"""Reading one value: a number, a time, a ratio, a word, a quantity, or an expression."""

from __future__ import annotations

import re

from renio_pipeline.tasks.maths.answers import (
    Answer,
    Clock,
    Dots,
    Formula,
    Matrix,
    Number,
    NumberSet,
    Quantity,
    Ratio,
    Text,
    Word,
)
from renio_pipeline.tasks.maths.notation.scanning import balanced, split
from renio_pipeline.tasks.maths.reading.formulas import expression, is_matrix
from renio_pipeline.tasks.maths.reading.numbers import based_number, plain_number
from renio_pipeline.tasks.maths.reading.rationals import rational
from renio_pipeline.tasks.maths.reading.size import too_large, too_long
from renio_pipeline.tasks.maths.reading.unit_table import is_known
from renio_pipeline.tasks.maths.reading.units import compound, measured

_CLOCK = re.compile(
    r"(\d{1,2})\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?\s*(?:\\text\{\s*)?([ap]\.?\s?m\.?|noon|midnight|o'clock|hours|hrs)?\s*\}?",
    re.IGNORECASE,
)
_HOUR = re.compile(r"(\d{1,2})\s*(?:\\text\{\s*)?([ap]\.?\s?m\.?)\s*\}?", re.IGNORECASE)
_NUMBER_SET = re.compile(r"\\mathbb\s*\{\s*([RZNQC])\s*\}((?:\^\{?\d\}?|_\{?[^{}]\}?|\^\{[+*-]\})*)|\\emptyset|\\\{\s*\\\}")
_SPELLED = re.compile(r"[^\W\d_]{3}|[^\x00-\x7f]")
_NO_FORMULA = re.compile(  # a word among symbols, a date
    r"(?<![\\a-zA-Z{])(?=[a-zA-Z]*[eiou])[a-zA-Z]{4,}|\d{4}\s*-\s*\d{2}\s*-\s*\d{2}|\d{1,2}\s*/\s*\d{1,2}\s*/\s*\d{4}"
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{4}")
_BLANK = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # but for those between digits
_COLON = re.compile(r":")
_KNOWN_WORDS = {"no", "on", "up", "in", "to", "is", "it", "yes", "odd", "even", "one", "two", "ten", "none", "dne"}
_WORD_LETTERS = re.compile(r"[eiou]", re.IGNORECASE)  # e and i are numbers, o and u hardly ever symbols
_ROMAN = re.compile("I{1,3}|IV|VI{0,3}|IX|X")


def scalar(text: str) -> Answer:
    """What one value of a normal text is; a ``Text`` where nothing else reads it."""
    return _number(text) or _time_or_ratio(text) or _word(text) or _quantity(text) or _formula(text) or _text(text)


def sum_of_units(text: str) -> Answer | None:
    """A value in several units, such as 1 hour and 30 minutes."""
    found = compound(text)
    return Quantity(Number(found[0]), found[1]) if found else None


def _number(text: str) -> Answer | None:
    if number := plain_number(text) or based_number(text):
        return number
    found = _NUMBER_SET.fullmatch(text)
    return NumberSet("empty" if found[1] is None else found[1] + re.sub(r"[{}\s]", "", found[2])) if found else None


def _time_or_ratio(text: str) -> Answer | None:
    if found := _CLOCK.fullmatch(text) or _HOUR.fullmatch(text):
        parts = tuple(int(part) for part in found.groups()[:-1] if part)
        half = (found[len(found.groups())] or "").replace(".", "").replace(" ", "").lower()
        return Clock(parts if len(parts) > 1 else (*parts, 0), half[:2] if half in ("am", "pm") else None)
    pieces = split(text, _COLON)[::2]
    if len(pieces) > 1 and all(pieces) and not any(map(_is_prose, pieces)):
        values = tuple(Dots() if piece == r"\ldots" else scalar(piece) for piece in pieces)
        return None if any(isinstance(value, (Text, Word)) for value in values) else Ratio(values)
    return None


def _is_prose(text: str) -> bool:
    return isinstance(_word(text), Word) and len(text) > 1


def _word(text: str) -> Answer | None:
    r"""Letters that are words: in ``\text{}``, or such that they are hardly a product of symbols."""
    marked = r"\text{" in text
    letters = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    bare = re.sub(r"[\s\-.,'\"()!?/;:&]", "", letters)
    if not bare.isalpha() or "\\" in letters or (not marked and "!" in text) or (marked and is_known(measured(text)[1])):
        return None
    single = (len(bare) == 1 and bare.isupper()) or _ROMAN.fullmatch(bare) is not None
    known = bare.lower() in _KNOWN_WORDS or not bare.isascii()
    spelled = len(bare) > 2 and _WORD_LETTERS.search(bare) is not None and re.fullmatch(r"[A-Za-z\s\-.,']+", letters)
    return Word(bare.casefold()) if marked or single or known or spelled else None


def _quantity(text: str) -> Answer | None:
    value, unit = measured(text)
    if unit is None:
        return None
    read = scalar(value)
    return None if isinstance(read, (Text, Word)) else Quantity(read, unit)


def _formula(text: str) -> Answer | None:
    found = None if _NO_FORMULA.search(text) else expression(text)
    if found is None:
        return None
    if is_matrix(found):
        return matrix_of(found)
    exact = rational(found)
    return Formula(found) if exact is None else Number(exact)


def matrix_of(found: object) -> Answer | None:
    """A product or sum of matrices, computed entry by entry."""
    from sympy import MatrixBase

    try:
        done = found if isinstance(found, MatrixBase) else found.doit()  # type: ignore[attr-defined]
    except (ArithmeticError, ValueError, TypeError, NotImplementedError):
        return None
    if not isinstance(done, MatrixBase):
        return None
    rows = []
    for row in done.tolist():
        exact = [(entry, rational(entry)) for entry in row]
        rows.append(tuple(Formula(entry) if value is None else Number(value) for entry, value in exact))
    return Matrix(tuple(rows))


def _text(text: str) -> Text:
    """Prose may be an answer, and a number that is too large to be computed; commands that cannot be read are hardly one."""
    prose = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    words = _SPELLED.search(prose) is not None and not re.search(r"[\\^_{}]", prose)
    sound = balanced(text) and (words or _DATE.fullmatch(text) is not None or (not too_long(text) and too_large(text)))
    return Text(_BLANK.sub("", prose.casefold() if sound else prose), sound)
