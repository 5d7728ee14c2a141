"""What a source's rows are to the rest: a sequence that reads a row when it is asked for it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

import numpy as np

from renio_pipeline.data.records import Layout
from renio_pipeline.types import Row


class Rows(Sequence[Row]):
    """A source's rows, by index."""

    notes: tuple[str, ...] = ()  # what the user should know of them

    @abstractmethod
    def row(self, index: int) -> Row:
        """Raises ConfigError if the source was changed since it was checked."""

    @abstractmethod
    def where(self, row: Row) -> str:
        """Where a row stands: ``x.jsonl, line 3``."""

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        places = range(len(self))[index]
        return self.row(places) if isinstance(places, int) else [self.row(i) for i in places]


class Chosen(Rows):
    """Some of the rows, in their order."""

    def __init__(self, rows: Rows, indices: np.ndarray) -> None:
        self._rows, self._indices = rows, indices  # [N] int64

    def __len__(self) -> int:
        return len(self._indices)

    def row(self, index: int) -> Row:
        return self._rows.row(int(self._indices[index]))

    def where(self, row: Row) -> str:
        return self._rows.where(row)


class Made(Rows):
    """Rows that a task made by itself."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        return self._rows[index]

    def where(self, row: Row) -> str:
        return f"row {row.id!r}"


class Read(Rows):
    """Rows of a layout."""

    layout: Layout

    def where(self, row: Row) -> str:
        return f"{self.layout.path}, {self.layout.unit} {row.line}"
