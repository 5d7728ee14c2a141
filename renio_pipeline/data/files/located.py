"""Rows of text files (JSON Lines, JSON arrays, CSV), each read by its place in its file."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from renio_pipeline.config import ConfigError
from renio_pipeline.data.files.compressed import opened
from renio_pipeline.data.records import Layout, Scan
from renio_pipeline.data.rows import Read
from renio_pipeline.types import Row


class Found(NamedTuple):
    """A record and where it is."""

    number: int  # of its line or row, from 1
    offset: int  # bytes
    length: int
    record: Any


class BadRecord(ValueError):
    """A record that cannot be read: its number in its file (0: the file's fault), and why."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


class Format(Protocol):
    """One format of text files. One object reads one file."""

    def records(self, file: BinaryIO) -> Iterator[Found]:
        """All records in order. Raises BadRecord."""

    def record(self, data: bytes, number: int) -> Any:
        """A record from its bytes. Raises BadRecord."""


class LocatedRows(Read):
    """Only the location of each record is kept in memory: 32 bytes per row."""

    def __init__(self, layout: Layout, files: Sequence[tuple[str | Path, Format]]) -> None:
        """Check every row once.

        Args:
            files: several are one table, whose rows are numbered from 1 throughout.

        Raises:
            ConfigError: a file cannot be read, or a row is bad (with its line, or its number from 1).
        """
        self.layout = layout
        self._formats = [form for _, form in files]
        self._paths = [path for path, _ in files]
        self._files: list[BinaryIO] = []
        self._places = array("q")  # four per row: file, number, offset, length
        scan, seen = Scan(layout), 0
        for index, (path, form) in enumerate(files):
            before = seen if len(files) > 1 else 0
            try:
                self._files.append(opened(path))  # stays open: rows are read from it later
                for found in form.records(self._files[-1]):
                    seen += 1
                    if not layout.wanted(found.record):
                        scan.skip(found.record)
                        continue
                    self._places.extend((index, found.number + before, found.offset, found.length))
                    scan.add(found.record, found.number + before)
            except OSError as error:
                raise ConfigError(f"{layout.key}: {path} cannot be read: {error}") from None
            except BadRecord as error:
                raise self._error(error, path) from None
        self.notes = scan.finish(self)

    def __len__(self) -> int:
        return len(self._places) // 4

    def row(self, index: int) -> Row:
        file, number, offset, length = self._places[4 * index : 4 * index + 4]
        data = os.pread(self._files[file].fileno(), length, offset)  # pread, because threads share the file's position
        try:
            return self.layout.row(self._formats[file].record(data, number), number)
        except BadRecord as error:
            raise self._error(error, self._paths[file]) from None

    def _error(self, error: BadRecord, path: str | Path) -> ConfigError:
        if not error.number:
            return ConfigError(f"{self.layout.key}: {path}: {error}")
        return ConfigError(f"{self.layout.key}: {path}, {self.layout.unit} {error.number}: {error}")
