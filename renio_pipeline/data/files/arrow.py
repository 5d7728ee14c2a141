"""Tables: what ``datasets`` keeps in Arrow files, memory-mapped. Its readers are used for formats that have types of their own.

It is not asked to read JSON or CSV, because its readers make dates of text, and floats of integers: see ``sources``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.data.layouts.known import columns_of, is_derived
from renio_pipeline.data.layouts.paths import column_of
from renio_pipeline.data.records import Layout, Scan
from renio_pipeline.data.rows import Read
from renio_pipeline.types import Row

_BATCH = 1000
_NARROW: dict[str, Callable[[Any], Any]] = {"float32": np.float32, "float16": np.float16}


class ArrowRows(Read):
    """The rows of a table. Only the columns that a Row has are read."""

    def __init__(self, table: Any, layout: Layout) -> None:
        """Check every row once.

        Args:
            table: a ``datasets.Dataset``.
            layout: which column is which field.

        Raises:
            ConfigError: the column of the problem is missing, or a row is bad (with its number, from 1).
        """
        self.layout = layout
        asked = column_of(layout.name("problem"), table.column_names)
        sources = columns_of(layout.preset) if is_derived(layout.name("problem")) else (asked,)
        if table.num_rows and not any(name in table.column_names for name in sources):
            has = layout.has({name: _first_list(table, name) for name in table.column_names})
            raise ConfigError(f"{layout.where(1)}: no field {layout.name('problem')!r}; there are {has}")
        named = [column_of(layout.name(field), table.column_names) for field in layout.fields]
        of_only = [column_of(name, table.column_names) for name in layout.only]
        wanted = dict.fromkeys([*named, *columns_of(layout.preset), *of_only])
        self._table = table.select_columns([name for name in wanted if name in table.column_names])
        self._narrow = {
            name: _NARROW[kind.dtype] for name, kind in self._table.features.items() if getattr(kind, "dtype", None) in _NARROW
        }
        scan = Scan(layout)
        self._numbers = array("q")  # of the rows that are wanted, from 1
        for number, record in enumerate(self._records(), 1):
            if layout.wanted(record):
                self._numbers.append(number)
                scan.add(record, number)
            else:
                scan.skip(record)
        self.notes = scan.finish(self)

    def __len__(self) -> int:
        return len(self._numbers)

    def row(self, index: int) -> Row:
        number = self._numbers[index]
        return self.layout.row(self._widened(self._table[number - 1]), number)

    def _records(self) -> Iterator[dict[str, Any]]:
        for batch in self._table.iter(_BATCH):
            for values in zip(*batch.values(), strict=True):
                yield self._widened(dict(zip(batch, values, strict=True)))

    def _widened(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with numbers of half and single precision as their digits say: 0.1, not 0.10000000149011612."""
        for name, narrow in self._narrow.items():
            if record[name] is not None:
                record[name] = float(str(narrow(record[name])))
        return record


def _first_list(table: Any, name: str) -> Any:
    """The first value of a column of lists; None of any other, which may be costly to decode."""
    lists = type(table.features[name]).__name__ in ("List", "LargeList")
    return table.select_columns([name])[0][name] if lists else None
