"""Values that cross between a program and its tests as plain data: JSON, one message per line. Never code.

Plain are: None, bool, int, float, str, list, tuple, named tuples, set, dict and its relatives in ``collections``, bytearray,
NumPy's arrays and scalars, and what is in the table of ``values``. Other subclasses arrive as the plain type: a number that
claims to equal everything does not get across. ``Wire`` refuses everything else as ``Foreign``; ``References`` lets it cross.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Sequence
from typing import Any

from renio_pipeline.sandbox.exchange import values

FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool)}
_ATOMS = frozenset({str, float, bool, type(None)})
_LONG = 1 << 10_000  # Python refuses to write much longer numbers in decimal
_PLAINER: dict[type, Any] = {str: str.__str__, int: int.__index__, float: float.__float__}  # what derived types arrive as
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
        """Encode a value that is not plain data, as ``{kind: ...}``. Raises Foreign."""
        raise Foreign(f"a {type(value).__name__} is not plain data")

    def made(self, kind: str, inner: Any) -> Any:
        """Decode what ``foreign`` has encoded. Raises ValueError for an unknown kind."""
        raise ValueError(f"no {kind} can cross")

    def pack(self, value: Any) -> Any:
        """The value as JSON can express it. Raises as ``dumps`` does."""
        if type(value) in _ATOMS:
            return value
        if type(value) is int:
            return value if -_LONG < value < _LONG else {"int": hex(value)}
        return self.compound(value)

    def pack_all(self, items: Sequence[Any]) -> list[Any]:
        """The same for each item."""
        kinds = set(map(type, items))
        if kinds <= _ATOMS or (kinds == {int} and min(items) > -_LONG and max(items) < _LONG):
            return list(items)
        return [self.pack(item) for item in items]

    def compound(self, value: Any) -> Any:
        """Encode what is neither a plain number nor text."""
        if (container := self.container(value)) is not None:
            kind, parts = container
            return parts if kind == "list" else {kind: parts}
        if type(value) is tuple:
            return self._tuple(value)
        if type(value).__module__ == "numpy" and (scalar := self._scalar(value)) is not None:
            return scalar
        if (found := values.packed(value, self.pack)) is not None:
            kind, parts = found
            return {kind: parts}
        if isinstance(value, tuple):
            return self._tuple(value)
        for plain, make in _PLAINER.items():
            if isinstance(value, plain):
                return self.pack(make(value))
        return self.foreign(value)

    def container(self, value: Any) -> tuple[str, Any] | None:
        """(kind, encoded contents) of what can be changed in place. None for all else."""
        if isinstance(value, list):
            return "list", self.pack_all(value)
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, set):
            return "set", self.pack_all(list(value))
        if isinstance(value, bytearray):
            return "bytearray", bytes(value).hex()
        if isinstance(value, deque):
            return "deque", [self.pack_all(list(value)), value.maxlen]
        numpy: Any = sys.modules.get("numpy")
        if hasattr(numpy, "ndarray") and isinstance(value, numpy.ndarray) and not value.dtype.names:
            if value.dtype.kind in _ARRAY_KINDS:
                return "ndarray", [value.dtype.str, list(value.shape), value.tobytes().hex()]
            if value.dtype.kind == "O":
                return "objects", [list(value.shape), self.pack_all(value.ravel().tolist())]
        return None

    def unpack(self, value: Any) -> Any:
        if isinstance(value, list):
            return list(value) if set(map(type, value)) <= _ATOMS | {int} else [self.unpack(v) for v in value]
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind in MAKERS:
            return MAKERS[kind](self.unpack(inner))
        if kind in values.MAKERS:
            return values.MAKERS[kind](self.unpack(inner))
        return self.made(kind, inner)

    def _dict(self, value: dict[Any, Any]) -> tuple[str, Any]:
        items = [self.pack_all(item) for item in value.items()]
        if isinstance(value, defaultdict):
            return "defaultdict", [self._factory(value.default_factory), items]
        return next((k.__name__ for k in (Counter, OrderedDict) if isinstance(value, k)), "dict"), items

    def _factory(self, factory: Any) -> Any:
        name = getattr(factory, "__name__", None)
        return name if FACTORIES.get(name) is factory else [self.pack(factory)]  # type: ignore[arg-type]

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        packed = self.pack_all(value)
        fields = getattr(type(value), "_fields", None)
        if fields and len(fields) == len(packed):
            return {"namedtuple": [type(value).__name__, list(map(str, fields)), packed]}
        return {"tuple": packed}

    def _scalar(self, value: Any) -> Any:
        """A scalar of NumPy: with its type, for a side that has loaded NumPy, and as Python's number for the other."""
        numpy: Any = sys.modules.get("numpy")
        if not (hasattr(numpy, "generic") and isinstance(value, numpy.generic)):
            return None
        if value.dtype.kind in "biufcU" and value.dtype.char not in "gG":
            return {"scalar": [value.dtype.str, self.pack(value.item())]}
        container = self.container(numpy.asarray(value))
        return container and {"element": {container[0]: container[1]}}


def _named_tuple(parts: list[Any]) -> Any:
    """Raises ValueError for fields that no named tuple has. Its maker may have renamed some, to their places."""
    name, fields, values = parts
    if not all(map(str.isidentifier, fields)):
        raise ValueError(f"no named tuple has the fields {fields}")
    return namedtuple(name, fields, rename=any(field == f"_{at}" for at, field in enumerate(fields)))(*values)


def _ndarray(parts: list[Any]) -> Any:
    import numpy

    dtype, shape, data = parts
    if numpy.dtype(dtype).kind not in _ARRAY_KINDS:
        raise ValueError(f"no array of {dtype} can cross")
    return numpy.frombuffer(bytearray.fromhex(data), dtype=dtype).reshape(shape)


def _objects(parts: list[Any]) -> Any:
    import numpy

    shape, items = parts
    array = numpy.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)


def _scalar(parts: list[Any]) -> Any:
    dtype, number = parts
    numpy: Any = sys.modules.get("numpy")
    return number if numpy is None else numpy.dtype(dtype).type(number)


def default_factory(packed: Any) -> Any:
    """What ``_factory`` has encoded, once it is unpacked. Raises KeyError for an unknown name."""
    return packed[0] if isinstance(packed, list) else FACTORIES[packed]


MAKERS: dict[str, Any] = {
    "dict": dict, "Counter": lambda items: Counter(dict(items)), "OrderedDict": OrderedDict,
    "defaultdict": lambda parts: defaultdict(default_factory(parts[0]), parts[1]),
    "tuple": tuple, "set": set, "bytearray": bytearray.fromhex, "deque": lambda parts: deque(*parts),
    "namedtuple": _named_tuple, "int": lambda text: int(text, 16),
    "ndarray": _ndarray, "objects": _objects, "scalar": _scalar, "element": lambda array: array[()],
}  # fmt: skip

PLAIN = Wire()
