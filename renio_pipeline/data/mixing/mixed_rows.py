"""The rows of several sources: each with its source's name, and all of them as one sequence."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from renio_pipeline.data.rows import Rows
from renio_pipeline.types import Row


class OfSource(Rows):
    """One source's rows, under ids that no other source's rows have: ``gsm8k/17`` for row 17 of source gsm8k."""

    def __init__(self, rows: Rows, name: str, teacher: str | None = None) -> None:
        """``teacher``: scores the responses to all of them; None: the one that each row names."""
        self._rows, self._name, self._teacher = rows, name, teacher
        self.notes = rows.notes

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        row = self._rows.row(index)
        return replace(row, id=f"{self._name}/{row.id}", source=self._name, teacher=self._teacher or row.teacher)

    def where(self, row: Row) -> str:
        return self._rows.where(row)


class Joined(Rows):
    """The rows of several sources, one source after the other."""

    def __init__(self, sources: Sequence[tuple[str, Rows]]) -> None:
        """``sources``: each with its name, which its rows have too."""
        self._sources = [rows for _, rows in sources]
        self._named = dict(sources)
        self._starts = [0, *accumulate(len(rows) for rows in self._sources)]

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, index: int) -> Row:
        source = bisect_right(self._starts, index) - 1
        return self._sources[source].row(index - self._starts[source])

    def where(self, row: Row) -> str:
        return self._named[row.source or ""].where(row)
