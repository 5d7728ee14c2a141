"""Tables and moments of pandas that a program returns, as they cross to its tests: as data, the tables by their columns."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

KINDS = ("DataFrame", "Series", "Index", "MultiIndex", "RangeIndex", "NA", "NaT", "Timestamp", "Timedelta")
_PLAIN_KINDS = "biufcmM"  # of NumPy's data types that columns have


def packed(value: Any, pack: Callable[[Any], Any]) -> Any:
    """The encoded table, index or missing value, also of a class that is derived from a table's. None for all else."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "NaT") or not any(c.__module__.startswith("pandas.") for c in type(value).__mro__):
        return None
    if value is pandas.NA or value is pandas.NaT:
        return {"NA" if value is pandas.NA else "NaT": None}
    if isinstance(value, pandas.Timestamp):
        return {"Timestamp": [value.value, pack(value.tzinfo)]}
    if isinstance(value, pandas.Timedelta):
        return {"Timedelta": value.value}
    if isinstance(value, pandas.DataFrame):
        columns = [_column(value.iloc[:, at], pack) for at in range(value.shape[1])]
        return {"DataFrame": [packed(value.columns, pack), packed(value.index, pack), columns]}
    if isinstance(value, pandas.Series):
        return {"Series": [packed(value.index, pack), _column(value, pack), pack(value.name)]}
    if isinstance(value, pandas.RangeIndex):
        return {"RangeIndex": [value.start, value.stop, value.step, pack(value.name)]}
    if isinstance(value, pandas.MultiIndex):
        return {"MultiIndex": [pack(list(value)), pack(list(value.names))]}
    if isinstance(value, pandas.Index):
        return {"Index": [_column(value, pack), pack(value.name), getattr(value, "freqstr", None)]}
    return None


def _column(values: Any, pack: Callable[[Any], Any]) -> list[Any]:
    """[type, values, whether they are categories that have an order]."""
    dtype, kind = str(values.dtype), getattr(values.dtype, "kind", "O")
    if dtype == "category":
        parts = values.cat if hasattr(values, "cat") else values
        return ["category", [pack(parts.codes.__array__()), packed(parts.categories, pack)], bool(parts.ordered)]
    plain = kind in _PLAIN_KINDS and type(values.dtype).__module__.startswith("numpy")
    return [dtype, pack(values.to_numpy() if plain else list(values)), None]


def made(kind: str, parts: Any) -> Any:
    """Raises ValueError, TypeError or what else pandas raises for parts that it has not."""
    import pandas

    if kind in ("NA", "NaT"):
        return getattr(pandas, kind)
    if kind == "Timestamp":
        return pandas.Timestamp(parts[0], tz=parts[1])
    if kind == "Timedelta":
        return pandas.Timedelta(parts)
    if kind == "RangeIndex":
        return pandas.RangeIndex(*parts[:3], name=parts[3])
    if kind == "MultiIndex":
        return pandas.MultiIndex.from_tuples(parts[0], names=parts[1])
    if kind == "Index":
        return pandas.Index(_values(pandas, parts[0]), name=parts[1], **({"freq": parts[2]} if parts[2] else {}))
    if kind == "Series":
        return pandas.Series(_values(pandas, parts[1]), index=parts[0], name=parts[2])
    columns, index, contents = parts
    table = pandas.DataFrame({at: pandas.Series(_values(pandas, c), index=index) for at, c in enumerate(contents)}, index=index)
    table.columns = columns
    return table


def _values(pandas: Any, column: list[Any]) -> Any:
    dtype, values, ordered = column
    if dtype == "category":
        return pandas.Categorical.from_codes(values[0], categories=values[1], ordered=ordered)
    return pandas.array(values, dtype=dtype) if isinstance(values, list) else values
