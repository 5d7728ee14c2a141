"""Values that cross between a program and its judge: plain data as JSON, one message per line. Never code.

Plain are: None, bool, int, float, complex, Fraction, Decimal, dates and times, str, bytes, bytearray, list, tuple, named
tuples, range, deque, set, frozenset, dict, Counter, OrderedDict, defaultdict and views, NumPy's arrays and scalars. Other
subclasses arrive as the plain type: a number that claims to equal everything does not get across. ``Wire`` refuses anything
else as ``Foreign``; ``peer.py`` lets objects cross as references.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any

_FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool)}
_LONG = 10_000  # bits; Python refuses to write much longer numbers in decimal
_TIMES = ("datetime", "date", "time", "timedelta")
_ARRAY_KINDS = "biufcUSmM"  # of NumPy's data types: none that holds objects


class Foreign(Exception):
    """A value that is not plain data. Not a TypeError, which a test may expect."""


class Wire:
    """Encodes and decodes plain data."""

    def dumps(self, value: Any) -> bytes:
        """Encode a value. Raises Foreign, and RecursionError for a value that is nested too deeply or contains itself."""
        return json.dumps(self.pack(value)).encode() + b"\n"

    def loads(self, line: bytes) -> Any:
        """Decode a message. Raises ValueError, RecursionError or TypeError for anything that ``dumps`` cannot produce."""
        return self.unpack(json.loads(line))

    def foreign(self, value: Any) -> Any:
        """Encode a value that is not plain data, as ``{kind: ...}``."""
        raise Foreign(f"a {type(value).__name__} is not plain data")

    def made(self, kind: str, inner: Any) -> Any:
        """Decode what ``foreign`` has encoded."""
        raise ValueError(f"no {kind} can cross")

    def pack(self, value: Any) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            number = int.__index__(value)
            return {"int": hex(number)} if number.bit_length() > _LONG else number
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, list):
            return [self.pack(v) for v in value]
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, set | frozenset):
            return {"set" if isinstance(value, set) else "frozenset": [self.pack(v) for v in value]}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, bytes | bytearray):
            return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(memoryview(value)).hex()}
        if isinstance(value, range):
            return {"range": [value.start, value.stop, value.step]}
        if isinstance(value, deque):
            return {"deque": [[self.pack(v) for v in value], value.maxlen]}
        for view in (KeysView, ItemsView, ValuesView):
            if isinstance(value, view):
                return {view.__name__: [self.pack(v) for v in value]}
        found = _of_a_loaded_module(value)
        return self.foreign(value) if found is None else found

    def unpack(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.unpack(v) for v in value]
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind in _MAKERS:
            return _MAKERS[kind](self.unpack(inner))
        return self.made(kind, inner)

    def _dict(self, value: dict[Any, Any]) -> Any:
        items = [[self.pack(k), self.pack(v)] for k, v in value.items()]
        if isinstance(value, defaultdict):
            factory = getattr(value.default_factory, "__name__", "")
            if _FACTORIES.get(factory) is value.default_factory:
                return {"defaultdict": [factory, items]}
        kind = next((k.__name__ for k in (Counter, OrderedDict) if isinstance(value, k)), "dict")
        return {kind: items}

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        values = [self.pack(v) for v in value]
        fields = getattr(type(value), "_fields", None)
        if fields and len(fields) == len(values):
            return {"namedtuple": [type(value).__name__, list(map(str, fields)), values]}
        return {"tuple": values}


def _of_a_loaded_module(value: Any) -> Any:
    """Values of modules that are slow to import; if the program has such a value, its module is already loaded."""
    fractions, decimal, datetime = (sys.modules.get(name) for name in ("fractions", "decimal", "datetime"))
    if fractions is not None and isinstance(value, fractions.Fraction):
        return {"Fraction": [value.numerator, value.denominator]}
    if decimal is not None and isinstance(value, decimal.Decimal):
        return {"Decimal": str(value)}
    if datetime is not None and isinstance(value, datetime.timedelta):
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    for kind in _TIMES[:3] if datetime is not None else ():
        if isinstance(value, getattr(datetime, kind)) and getattr(value, "tzinfo", None) is None:
            return {kind: getattr(datetime, kind).isoformat(value)}
    numpy: Any = sys.modules.get("numpy")
    if hasattr(numpy, "ndarray") and isinstance(value, numpy.ndarray | numpy.generic):
        return _array(numpy.asarray(value), scalar=isinstance(value, numpy.generic))
    return None


def _array(array: Any, *, scalar: bool) -> Any:
    """NumPy's arrays as bytes; its scalars as Python's, where Python has them."""
    if array.dtype.kind not in _ARRAY_KINDS or array.dtype.names:
        return None
    if scalar and array.dtype.kind in "biufcU":
        return {"complex": [array.item().real, array.item().imag]} if array.dtype.kind == "c" else array.item()
    return {"ndarray": [array.dtype.str, list(array.shape), array.tobytes().hex()]}


def _number(module: str, kind: str) -> Any:
    def make(inner: Any) -> Any:
        cls = getattr(__import__(module), kind)
        return cls(*inner) if isinstance(inner, list) else cls(inner)

    return make


def _time(kind: str) -> Any:
    return lambda text: getattr(__import__("datetime"), kind).fromisoformat(text)


def _ndarray(parts: list[Any]) -> Any:
    import numpy

    dtype, shape, data = parts
    if numpy.dtype(dtype).kind not in _ARRAY_KINDS:
        raise ValueError(f"no array of {dtype} can cross")
    return numpy.frombuffer(bytearray.fromhex(data), dtype=dtype).reshape(shape)


_MAKERS: dict[str, Any] = {
    "dict": dict, "Counter": lambda items: Counter(dict(items)), "OrderedDict": OrderedDict,
    "defaultdict": lambda parts: defaultdict(_FACTORIES[parts[0]], parts[1]),
    "tuple": tuple, "set": set, "frozenset": frozenset, "range": lambda parts: range(*parts),
    "namedtuple": lambda parts: namedtuple(parts[0], parts[1])(*parts[2]),
    "deque": lambda parts: deque(*parts), "complex": lambda parts: complex(*parts),
    "int": lambda text: int(text, 16), "bytes": bytes.fromhex, "bytearray": bytearray.fromhex, "ndarray": _ndarray,
    "Fraction": _number("fractions", "Fraction"), "Decimal": _number("decimal", "Decimal"),
    "timedelta": _number("datetime", "timedelta"), "datetime": _time("datetime"), "date": _time("date"), "time": _time("time"),
    "KeysView": lambda items: dict.fromkeys(items).keys(), "ItemsView": lambda items: dict(items).items(),
    "ValuesView": lambda items: dict(enumerate(items)).values(),
}  # fmt: skip

PLAIN = Wire()
