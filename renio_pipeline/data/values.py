"""From a field's value to text: the same text for the same value, whichever reader it came through.

Readers give one value different types: an integer beside a missing value becomes ``7.0`` in pandas, a decimal becomes a float
in JSON. A value's text is therefore that of the number itself, not of its type.
"""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

POSITIONAL = (-12, 40)  # powers of ten of the first digit between which a number is written without an exponent


def is_missing(value: Any) -> bool:
    """Whether this is how a reader says that there is no value: null, or a number that is not one (pandas)."""
    return value is None or (isinstance(value, (float, Decimal)) and math.isnan(value))


def text_of(value: Any) -> str | None:
    """The text of a value; None if it is missing.

    >>> [text_of(v) for v in (" 007", 7, 7.0, 2.50, Decimal("7.00"), 10**30, float("nan"))]
    [' 007', '7', '7', '2.5', '7', '1000000000000000000000000000000', None]

    Raises:
        ValueError: it is neither text nor a number. The message follows "field 'x' must be text or a number, ".
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    kind = type(value).__name__
    raise ValueError(f"got {kind}" + ("; write it as text" if isinstance(value, (datetime, bytes)) else ""))


def answer_of(value: Any) -> str | None:
    """The same of an answer, which may be several: the maths task reads ``2, 3`` as the set of both.

    >>> [answer_of(v) for v in ("7", 7.0, ["a", 2.0], [])]
    ['7', '7', 'a, 2', None]

    Raises:
        ValueError: as ``text_of``.
    """
    if not isinstance(value, (list, tuple)):
        return text_of(value)
    parts = [text for each in value if (text := text_of(each)) is not None]
    return ", ".join(parts) if parts else None


def _decimal(value: Decimal) -> str:
    if value.is_infinite():
        raise ValueError(f"got {value}, which no response can equal; write it as text")
    if value.is_zero():
        return "0"
    low, high = POSITIONAL
    if low <= value.adjusted() <= high:
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = format(value, "e").partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{exponent}"


def json_of(value: Any) -> str:
    """An object or a list as JSON. Raises ValueError if it holds what JSON cannot."""

    def plain(inner: Any) -> Any:
        if isinstance(inner, Decimal):
            return float(inner)
        raise ValueError(f"and this one holds {type(inner).__name__}")

    return json.dumps(value, default=plain)
