"""The rows of a source: a sequence that reads each row when it is asked for it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

import numpy as np

from renio_pipeline.data.records import Layout
from renio_pipeline.types import Row


class Rows(Sequence[Row]):
    """The rows of a source, by index."""

    notes: tuple[str, ...] = ()  # what the user should know about the source

    @abstractmethod
    def row(self, index: int) -> Row:
        """Read one row. Raises ConfigError if the source has changed since it was checked."""

    @abstractmethod
    def where(self, row: Row) -> str:
        """The location of a row, for messages: ``x.jsonl, line 3``."""

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        places = range(len(self))[index]
        return self.row(places) if isinstance(places, int) else [self.row(i) for i in places]


class Chosen(Rows):
    """A selection of another source's rows, in their order."""

    def __init__(self, rows: Rows, indices: np.ndarray) -> None:
        self._rows, self._indices = rows, indices  # indices: [N] int64

    def __len__(self) -> int:
        return len(self._indices)

    def row(self, index: int) -> Row:
        return self._rows.row(int(self._indices[index]))

    def where(self, row: Row) -> str:
        return self._rows.where(row)


class Made(Rows):
    """Rows that a task generated."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        return self._rows[index]

    def where(self, row: Row) -> str:
        return f"row {row.id!r}"


class Read(Rows):
    """Rows that are read from a file or a table, by a layout."""

    layout: Layout

    def where(self, row: Row) -> str:
        return f"{self.layout.path}, {self.layout.unit} {row.line}"
