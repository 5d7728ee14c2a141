"""Values between a program and what judges it: plain data as JSON, one message a line. Never code, never an object.

What crosses: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, and iterators (as what they
yield). Subclasses arrive as the plain type. Anything else is ``Foreign``: a value that claims to equal everything cannot cross.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

MOST_YIELDED = 100_000


class Foreign(Exception):
    """A value that is not plain data. No kind of TypeError: a test that expects one would take it for that."""


def dumps(value: Any) -> bytes:
    """Raises Foreign; RecursionError for a value that is nested too deeply or contains itself."""
    return json.dumps(_pack(value)).encode() + b"\n"


def loads(line: bytes) -> Any:
    """Raises ValueError, RecursionError or TypeError for what ``dumps`` never makes."""
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
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Iterator):
        return {"iterator": [_pack(v) for v in itertools.islice(value, MOST_YIELDED)]}
    if hasattr(type(value), "dtype") and hasattr(type(value), "item") and getattr(value, "ndim", None) == 0:
        return _pack(value.item())  # a number of numpy
    raise Foreign(f"a {type(value).__name__} is not plain data")


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "complex":
        return complex(*inner)
    items = _unpack(inner)
    makers: dict[str, Any] = {"dict": dict, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}
    return makers[kind](items)
