"""Rows from files and the hub, read when they are asked for: what a run holds in memory does not grow with its data."""

from __future__ import annotations

import json
import os
import re
from abc import abstractmethod
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import FieldName, Source
from renio_pipeline.data.records import Layout, Scan
from renio_pipeline.types import Row

TRAINING: tuple[FieldName, ...] = ("answer", "solution", "tests")
HELD_OUT: tuple[FieldName, ...] = ("answer", "tests")

_HUB = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_FILES = (".jsonl", ".json", ".parquet")


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


class JsonLines(Read):
    """One JSON object a line. Only where each line lies is kept: 24 bytes a row."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._places = array("q")  # of each row: its line's number, offset and length
        scan, offset = Scan(layout), 0
        try:
            self._file = Path(layout.path).open("rb")  # noqa: SIM115 - rows are read from it for as long as it lives
            for number, line in enumerate(self._file, 1):
                if line.strip():
                    self._places.extend((number, offset, len(line)))
                    scan.add(self._record(line, number), number)
                offset += len(line)
        except OSError as error:
            raise ConfigError(f"{layout.key}: {layout.path} cannot be read: {error}") from None
        self.notes = scan.finish(self)

    def __len__(self) -> int:
        return len(self._places) // 3

    def row(self, index: int) -> Row:
        number, offset, length = self._places[3 * index : 3 * index + 3]
        line = os.pread(self._file.fileno(), length, offset)  # not seek and read: safe where threads share the file
        return self.layout.row(self._record(line, number), number)

    def _record(self, line: bytes, number: int) -> Any:
        where = self.layout.where(number)
        try:
            return json.loads(line.decode())
        except json.JSONDecodeError as error:
            raise ConfigError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # not UTF-8, a number too long, brackets too deep
            raise ConfigError(f"{where}: cannot be read: {error}") from None


def load_rows(source: Source, *, key: str = "data.path", optional: Sequence[FieldName] = TRAINING) -> Rows:
    """The rows of ``source.path``, each checked once: a JSON Lines file, a JSON or Parquet file, a folder (of such files, in
    the hub's layout, or as ``save_to_disk`` writes it), or a data set of the hub.

    Args:
        key: the configuration key of the path, for the errors; those of fields name ``fields`` beside it.
        optional: what to read beside ``id`` and ``problem``.

    Raises:
        ConfigError: the source is missing, unreadable or empty, or a row is bad (with its line, or its number from 1).
    """
    path = source.path
    if path is None or not path.strip():
        raise ConfigError(f"{key}: required: a file, a folder, or a name on the hub")
    place = Path(path)
    if not place.exists() and not _is_hub_name(path):
        raise ConfigError(f"{key}: {path} does not exist")
    if place.is_file():
        _refuse_parts(source, key)
        if place.suffix != ".parquet" and not (place.suffix == ".json" and _is_array(place)):
            return JsonLines(Layout.of(source, key=key, optional=optional, unit="line"))
    from renio_pipeline.data.arrow import ArrowRows, open_table

    return ArrowRows(open_table(source, key), Layout.of(source, key=key, optional=optional, unit="row"))


def _is_hub_name(path: str) -> bool:
    return _HUB.fullmatch(path) is not None and not path.endswith(_FILES) and not path.startswith(".")


def _is_array(file: Path) -> bool:
    """A ``.json`` file may be one array of rows, or JSON Lines by another name."""
    with file.open("rb") as opened:
        return opened.read(4096).lstrip().startswith(b"[")


def _refuse_parts(source: Source, key: str) -> None:
    section = key.rpartition(".")[0]
    for name, given, default in (("subset", source.subset, None), ("split", source.split, "train")):
        if given != default:
            raise ConfigError(f"{section}.{name}: {source.path} is one file, and has no {name}s; leave {section}.{name} out")
