"""Whether what a program gave is what its tests expect: results as JSON, outputs word by word."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

_CLOSE = Decimal("1e-6")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONGEST_EXPONENT = 400  # of a number that is compared by value


def any_same(value: Any, wanted: Iterable[Any]) -> bool:
    """Whether a value is one of the accepted results."""
    try:
        return any(same(value, one) for one in wanted)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return False  # not comparable, such as an integer too large for a float


def same(value: Any, wanted: Any) -> bool:
    """Whether two values are equal as JSON: tuples are lists, keys are text, and fractional numbers are near, see ``_near``."""
    if isinstance(wanted, list):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(same(v, w) for v, w in zip(value, wanted, strict=True))
        )
    if isinstance(wanted, dict):
        keyed = {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}
        return isinstance(value, dict) and keyed.keys() == wanted.keys() and all(same(keyed[k], w) for k, w in wanted.items())
    if isinstance(wanted, float) and isinstance(value, int | float):
        return value == wanted or (
            math.isfinite(value) and math.isfinite(wanted) and _near(Decimal(value), Decimal(repr(wanted)))
        )
    return type(value) in (type(None), bool, int, float, str) and bool(value == wanted)


def same_output(output: str, wanted: str) -> bool:
    """Whether two outputs have the same words.

    Integers and all other words are compared as text. Where one of two numbers has a point or an exponent, they may be written
    differently: an integer and a decimal must be equal (``3`` and ``3.0``), two decimals near, see ``_near``.
    """
    found, words = output.split(), wanted.split()
    return len(found) == len(words) and all(f == w or _close(f, w) for f, w in zip(found, words, strict=True))


def _close(word: str, wanted: str) -> bool:
    if not (_NUMBER.fullmatch(word) and _NUMBER.fullmatch(wanted)) or (word.isdecimal() and wanted.isdecimal()):
        return False
    given, expected = Decimal(word), Decimal(wanted)
    if max(abs(given.adjusted()), abs(expected.adjusted())) > _LONGEST_EXPONENT:
        return False
    if _is_whole(word) or _is_whole(wanted):
        return not (_is_whole(word) and _is_whole(wanted)) and given == expected
    return _near(given, expected)


def _near(given: Decimal, expected: Decimal) -> bool:
    """To six significant digits; or, of a number written with fewer, to half of its last digit, but never coarser than 1e-6."""
    last = Decimal(10) ** int(expected.as_tuple().exponent) / 2
    return abs(given - expected) <= max(_CLOSE * max(abs(given), abs(expected)), min(last, _CLOSE))


def _is_whole(word: str) -> bool:
    return word.lstrip("+-").isdecimal()
