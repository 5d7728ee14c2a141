"""JSON Lines files: one object per line, read by its place in the file."""

from __future__ import annotations

import json
import os
from array import array
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.data.records import Layout, Scan
from renio_pipeline.data.rows import Read
from renio_pipeline.types import Row


class JsonLines(Read):
    """One JSON object per line. Only the location of each line is kept in memory: 24 bytes per row."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._places = array("q")  # three per row: the number, offset and length of its line
        scan, offset = Scan(layout), 0
        try:
            self._file = Path(layout.path).open("rb")  # noqa: SIM115 - stays open: rows are read from it later
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
        line = os.pread(self._file.fileno(), length, offset)  # pread, because threads share the file's position
        return self.layout.row(self._record(line, number), number)

    def _record(self, line: bytes, number: int) -> Any:
        where = self.layout.where(number)
        try:
            return json.loads(line.decode())
        except json.JSONDecodeError as error:
            raise ConfigError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # not UTF-8, a number too long, brackets too deep
            raise ConfigError(f"{where}: cannot be read: {error}") from None
