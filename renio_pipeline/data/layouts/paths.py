"""Fields inside of objects: ``reward_model.ground_truth``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def value_at(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of one inside of an object: None if it is missing. A field of the whole name takes precedence.

    >>> value_at({"a": {"b": 1}, "c.d": 2}, "a.b"), value_at({"c.d": 2}, "c.d"), value_at({"a": 3}, "a.b")
    (1, 2, None)
    """
    if name in record:
        return record[name]
    first, _, rest = name.partition(".")
    inner = record.get(first) if rest else None
    return value_at(inner, rest) if isinstance(inner, Mapping) else None


def column_of(name: str, columns: Mapping[str, Any] | list[str]) -> str:
    """The column that has a field: the field's own, or that of the object around it."""
    return name if name in columns else name.partition(".")[0]
