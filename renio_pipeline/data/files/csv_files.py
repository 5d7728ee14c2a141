"""CSV and TSV files with a header. A cell is text, as it stands: nothing is taken for a date, and no leading zero is lost."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from renio_pipeline.data.files.located import BadRecord, Found

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_HOLES = ("", "nan", "NaN")  # how tables write that a cell has no value


class CsvFile:
    """Records are dicts of the cells that are not empty.

    A column of numbers may have become one of floats through a hole, and been written so: there ``7.0`` is read as ``7``.
    """

    def __init__(self, separator: str) -> None:
        self._separator = separator
        self._header: list[str] = []
        self._numeric: set[int] = set()  # columns, known when the file has been read once

    def records(self, file: BinaryIO) -> Iterator[Found]:
        numeric: set[int] | None = None
        start = file.tell()
        for _, _, _, cells in self._rows(file):
            columns = range(len(self._header)) if numeric is None else numeric
            numeric = {i for i in columns if cells[i] in _HOLES or _NUMBER.fullmatch(cells[i])}
        self._numeric = numeric or set()
        file.seek(start)
        for number, offset, length, cells in self._rows(file):
            yield Found(number, offset, length, self._record(cells))

    def record(self, data: bytes, number: int) -> Any:
        try:
            (cells,) = self._read(line.decode() for line in io.BytesIO(data))
        except (csv.Error, ValueError) as error:
            raise BadRecord(number, f"cannot be read: {error}") from None
        return self._record(cells)

    def _rows(self, file: BinaryIO) -> Iterator[tuple[int, int, int, list[str]]]:
        """Number (0 is the header's), offset, length and cells of each row that is not blank."""
        read = 0  # bytes

        def lines() -> Iterator[str]:
            nonlocal read
            for line in file:
                read += len(line)
                yield (line.removeprefix(codecs.BOM_UTF8) if read == len(line) else line).decode()

        number, offset = 0, 0
        self._header = []
        rows = self._read(lines())
        while True:
            try:
                cells = next(rows, None)
            except (csv.Error, UnicodeDecodeError) as error:
                raise BadRecord(number, f"cannot be read: {error}") from None
            if cells is None:
                return
            if cells and not self._header:
                self._header = _checked(cells)
                number = 1
            elif cells:
                if len(cells) != len(self._header):
                    raise BadRecord(number, f"has {len(cells)} cells, and the header has {len(self._header)}")
                yield number, offset, read - offset, cells
                number += 1
            offset = read

    def _read(self, lines: Iterator[str]) -> Iterator[list[str]]:
        csv.field_size_limit(sys.maxsize)  # of the whole process; the default refuses long solutions
        return csv.reader(lines, delimiter=self._separator, strict=True)

    def _record(self, cells: list[str]) -> dict[str, str]:
        return {
            name: cell.removesuffix(".0") if i in self._numeric else cell
            for i, (name, cell) in enumerate(zip(self._header, cells, strict=True))
            if cell not in _HOLES
        }


def _checked(header: list[str]) -> list[str]:
    if twice := [name for name in header if header.count(name) > 1]:
        raise BadRecord(0, f"the header has {twice[0]!r} twice")
    return header
