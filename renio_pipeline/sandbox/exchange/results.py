"""Results of a function that are compared with JSON: encoded beside the program, decoded beside the expected results.

What decodes them is the grader itself, so nothing is made from a message but numbers, text, lists and dictionaries of text.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import KeysView, ValuesView
from typing import Any

_LONG = 1 << 10_000  # Python refuses to write much longer numbers in decimal


def dumps(value: Any) -> bytes:
    """One line for a value: sequences are lists, keys are text. Raises TypeError for what JSON has no counterpart of."""
    return json.dumps(_packed(value)).encode() + b"\n"


def loads(line: bytes) -> Any:
    """Raises ValueError, TypeError, RecursionError or AttributeError for anything that ``dumps`` cannot produce."""
    return _unpacked(json.loads(line))


def _packed(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__index__(value)
        return number if -_LONG < number < _LONG else {"int": hex(number)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, list | tuple | deque | range | KeysView | ValuesView):
        return [_packed(item) for item in value]
    if isinstance(value, dict):
        return {"dict": {str(key): _packed(item) for key, item in value.items()}}
    if type(value).__module__ == "numpy":
        return _packed(value.tolist())
    raise TypeError(f"a {type(value).__name__} has no counterpart in JSON")


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "int":
        return int(inner, 16)
    if kind != "dict":
        raise ValueError(f"no {kind} is a result")
    return {key: _unpacked(item) for key, item in inner.items()}
