"""Values that cross between a program and its judge: plain data as JSON, one message per line. Never code, never objects.

Allowed are: None, bool, int, float, complex, Fraction, Decimal, str, bytes, bytearray, list, tuple, range, deque, set,
frozenset, dict and its views, and iterators (as what they yield). Subclasses arrive as the plain type. Anything else is
``Foreign``: a value that claims to equal everything cannot get across.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import deque
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

MOST_YIELDED = 100_000


class Foreign(Exception):
    """A value that is not plain data. Not a TypeError, which a test may expect."""


def dumps(value: Any) -> bytes:
    """Encode a value. Raises Foreign, and RecursionError for a value that is nested too deeply or contains itself."""
    return json.dumps(_pack(value)).encode() + b"\n"


def loads(line: bytes) -> Any:
    """Decode a message. Raises ValueError, RecursionError or TypeError for anything that ``dumps`` cannot produce."""
    return _unpack(json.loads(line))


def _pack(value: Any) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, list):
        return [_pack(v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[_pack(k), _pack(v)] for k, v in value.items()]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [_pack(v) for v in value]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(memoryview(value)).hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, deque):
        return {"deque": [[_pack(v) for v in value], value.maxlen]}
    for view in (KeysView, ItemsView, ValuesView):
        if isinstance(value, view):
            return {view.__name__: [_pack(v) for v in value]}
    if (number := _number(value)) is not None:
        return number
    if isinstance(value, Iterator):
        return {"iterator": [_pack(v) for v in itertools.islice(value, MOST_YIELDED)]}
    if hasattr(type(value), "dtype") and hasattr(type(value), "item") and getattr(value, "ndim", None) == 0:
        return _pack(value.item())  # a NumPy scalar
    raise Foreign(f"a {type(value).__name__} is not plain data")


def _number(value: Any) -> Any:
    """Numbers of modules that are slow to import; if the program has such a number, its module is already loaded."""
    fractions, decimal = sys.modules.get("fractions"), sys.modules.get("decimal")
    if fractions is not None and isinstance(value, fractions.Fraction):
        return {"Fraction": [_pack(value.numerator), _pack(value.denominator)]}
    if decimal is not None and isinstance(value, decimal.Decimal):
        return {"Decimal": str(value)}
    return None


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    plain: dict[str, Any] = {"bytes": bytes.fromhex, "bytearray": bytearray.fromhex}
    if kind in plain:
        return plain[kind](inner)
    if kind in ("Fraction", "Decimal"):
        from decimal import Decimal
        from fractions import Fraction

        return Fraction(*inner) if kind == "Fraction" else Decimal(inner)
    makers: dict[str, Any] = {
        "dict": dict, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter,
        "complex": lambda parts: complex(*parts), "range": lambda parts: range(*parts), "deque": lambda parts: deque(*parts),
        "KeysView": lambda items: dict.fromkeys(items).keys(), "ItemsView": lambda items: dict(items).items(),
        "ValuesView": lambda items: dict(enumerate(items)).values(),
    }  # fmt: skip
    return makers[kind](_unpack(inner))
