"""Values of the language and its library that cannot be changed in place, as they cross: by their public parts.

A module is imported to make such a value, never to encode one: whoever has a value of it has loaded it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

Pack = Callable[[Any], Any]  # encodes a part


def packed(value: Any, pack: Pack) -> tuple[str, Any] | None:
    """(kind, encoded parts) of a value whose class, or one that it is derived from, is in the table. None for all else."""
    for cls in type(value).__mro__:
        entry = _KINDS.get(cls.__qualname__)
        if entry is not None and entry[0] == cls.__module__:
            return cls.__qualname__, entry[1](value, pack)
    return None


def is_data_class(module: str, name: str) -> bool:
    """Whether the instances of a class cross as data, so that either side may have the class itself."""
    return (name in _KINDS and _KINDS[name][0] == module) or (module == "collections" and name in _COLLECTIONS)


def _all(value: Any, pack: Pack) -> Any:
    return [pack(item) for item in value]


def _bounds(value: Any, pack: Pack) -> Any:
    return [pack(value.start), pack(value.stop), pack(value.step)]


def _moment(value: Any, pack: Pack) -> Any:
    zone = value.tzinfo
    if zone is not None and packed(zone, pack) is None and (offset := value.utcoffset()) is not None:
        zone = importlib.import_module("datetime").timezone(offset, value.tzname())  # as it is at that moment
    return [value.replace(tzinfo=None).isoformat(), value.fold, pack(zone)]


def _of(module: str, name: str, *parts: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*parts)


def _made_moment(name: str) -> Callable[[Any], Any]:
    def make(parts: Any) -> Any:
        text, fold, zone = parts
        return getattr(importlib.import_module("datetime"), name).fromisoformat(text).replace(fold=fold, tzinfo=zone)

    return make


def _made_zone(parts: Any) -> Any:
    import datetime

    offset, name = parts
    return datetime.UTC if not offset and name == "UTC" else datetime.timezone(offset, name)


def _made_pytz(parts: Any) -> Any:
    return _of("pytz", "_p", *parts) if parts else importlib.import_module("pytz").utc


def _made_date(text: Any) -> Any:
    from datetime import date

    return date.fromisoformat(text)


_COLLECTIONS = ("Counter", "OrderedDict", "defaultdict", "deque")
# The name of a class: its module, how its values are encoded, and how they are made from their decoded parts.
_KINDS: dict[str, tuple[str, Callable[[Any, Pack], Any], Callable[[Any], Any]]] = {
    "complex": ("builtins", lambda v, _: [v.real, v.imag], lambda parts: complex(*parts)),
    "bytes": ("builtins", lambda v, _: bytes(memoryview(v)).hex(), bytes.fromhex),
    "frozenset": ("builtins", _all, frozenset),
    "range": ("builtins", _bounds, lambda parts: range(*parts)),
    "slice": ("builtins", _bounds, lambda parts: slice(*parts)),
    "traceback": ("builtins", lambda *_: None, lambda _: None),
    "dict_keys": ("builtins", _all, lambda keys: dict.fromkeys(keys).keys()),
    "dict_items": ("builtins", _all, lambda items: dict(items).items()),
    "dict_values": ("builtins", _all, lambda items: dict(enumerate(items)).values()),
    "mappingproxy": ("builtins", lambda v, pack: [[pack(key), pack(value)] for key, value in v.items()],
                     lambda items: MappingProxyType(dict(items))),
    "Fraction": ("fractions", lambda v, pack: [pack(v.numerator), pack(v.denominator)],
                 lambda parts: _of("fractions", "Fraction", *parts)),
    "Decimal": ("decimal", lambda v, _: str(v), lambda text: _of("decimal", "Decimal", text)),
    "timedelta": ("datetime", lambda v, _: [v.days, v.seconds, v.microseconds],
                  lambda parts: _of("datetime", "timedelta", *parts)),
    "datetime": ("datetime", _moment, _made_moment("datetime")),
    "date": ("datetime", lambda v, _: v.isoformat(), _made_date),
    "time": ("datetime", _moment, _made_moment("time")),
    "timezone": ("datetime", lambda v, pack: [pack(v.utcoffset(None)), v.tzname(None)], _made_zone),
    "struct_time": ("time", lambda v, pack: pack(tuple(v)), lambda parts: _of("time", "struct_time", parts)),
    "BaseTzInfo": ("pytz.tzinfo", lambda v, pack: pack(v.__reduce__()[1]), _made_pytz),
    "ZoneInfo": ("zoneinfo", lambda v, _: v.key, lambda key: _of("zoneinfo", "ZoneInfo", key)),
    "UUID": ("uuid", lambda v, _: v.hex, lambda text: _of("uuid", "UUID", text)),
    "Pattern": ("re", lambda v, pack: [pack(v.pattern), v.flags], lambda parts: _of("re", "compile", *parts)),
    "array": ("array", lambda v, _: [v.typecode, v.tobytes().hex()],
              lambda parts: _of("array", "array", parts[0], bytes.fromhex(parts[1]))),
    "PurePosixPath": ("pathlib", lambda v, _: str(v), lambda text: _of("pathlib", "PurePosixPath", text)),
    "PosixPath": ("pathlib", lambda v, _: str(v), lambda text: _of("pathlib", "PosixPath", text)),
}  # fmt: skip
MAKERS: dict[str, Callable[[Any], Any]] = {name: entry[2] for name, entry in _KINDS.items()}
