"""JSON Lines files, and files with one JSON array of rows.

Both are read with Python's own parser. Readers of tables (pandas, Arrow) make dates of text, and floats of integers.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from renio_pipeline.data.files.compressed import beginning
from renio_pipeline.data.files.located import BadRecord, Format, Found

_DECODER = json.JSONDecoder(parse_float=Decimal)  # a double would round a number with many digits
UNREADABLE = (
    ValueError,
    RecursionError,
    ArithmeticError,
)  # not UTF-8, a number too long, brackets too deep, an exponent too large
_SPACE = re.compile(r"[ \t\n\r]*")
_LITERAL = 16  # characters: longer than any literal or escape that the end of a block may cut
BLOCK = 1 << 20


def json_format(file: Path, name: str = "") -> Format:
    """The format of a JSON file: an array of rows if it begins like one and is not called JSON Lines (``name``: as published).

    Raises:
        OSError: it cannot be read.
    """
    if ".jsonl" in (name or file.name):
        return JsonLines()
    begin = beginning(file, 4096).removeprefix(codecs.BOM_UTF8)
    return JsonArray() if begin.lstrip().startswith(b"[") else JsonLines()


class JsonLines:
    """One JSON object per line."""

    def records(self, file: BinaryIO) -> Iterator[Found]:
        offset = 0
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(codecs.BOM_UTF8):
                offset, line = len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield Found(number, offset, len(line), self.record(line, number))
            offset += len(line)

    def record(self, data: bytes, number: int) -> Any:
        try:
            return _DECODER.decode(data.decode())
        except json.JSONDecodeError as error:
            raise BadRecord(number, f"not JSON ({error.msg} at column {error.colno})") from None
        except UNREADABLE as error:
            raise BadRecord(number, f"cannot be read: {error}") from None


class JsonArray:
    """One array of objects. The file is read block by block, so that memory does not grow with it."""

    def records(self, file: BinaryIO) -> Iterator[Found]:
        text, number = _Text(file), 0
        try:
            text.expect("[", number)
            if text.next() == "]":
                text.expect("]", number)
            else:
                mark = ","
                while mark == ",":
                    number += 1
                    text.next()  # skips the space before the row
                    start, record = text.offset, text.value(number)
                    yield Found(number, start, text.offset - start, record)
                    mark = text.expect(",]", number)
            if text.next():
                raise BadRecord(number, "not JSON: more text follows the end of the array")
        except UnicodeDecodeError as error:
            raise BadRecord(number, f"cannot be read: {error}") from None

    def record(self, data: bytes, number: int) -> Any:
        return JsonLines().record(data, number)


class _Text:
    """A file's text, of which a block at a time is in memory. ``offset``: bytes that have been read past."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._decode = file, codecs.getincrementaldecoder("utf-8")().decode
        self._buffer, self._place = "", 0
        self.offset = len(file.read(3)) if file.peek(3)[:3] == codecs.BOM_UTF8 else 0  # type: ignore[attr-defined]

    def next(self) -> str:
        """The next character that is no space, without reading past it; nothing at the file's end."""
        while True:
            found = _SPACE.match(self._buffer, self._place)
            assert found is not None, "it matches nothing too"
            self._go_to(found.end())
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more():
                return ""

    def expect(self, marks: str, number: int) -> str:
        """Read past the next character. Raises BadRecord if it is none of ``marks``."""
        if not (mark := self.next()) or mark not in marks:
            wanted = " or ".join(map(repr, marks))
            raise BadRecord(number, f"not JSON: expected {wanted} after this row, got {mark!r}")
        self._go_to(self._place + 1)
        return mark

    def value(self, number: int) -> Any:
        """Read past the next value, and return it. Raises BadRecord."""
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._place)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._buffer) - _LITERAL
                if not (cut and self._more()):
                    raise BadRecord(number, f"not JSON ({error.msg})") from None
            except UNREADABLE as error:
                raise BadRecord(number, f"cannot be read: {error}") from None
            else:
                self._go_to(end)
                return found

    def _go_to(self, place: int) -> None:
        self.offset += len(self._buffer[self._place : place].encode())
        self._place = place

    def _more(self) -> bool:
        """Read the next block, and twice as much of a long value each time. Returns whether there was any."""
        data = self._file.read(max(BLOCK, len(self._buffer) - self._place))
        self._buffer, self._place = self._buffer[self._place :] + self._decode(data, not data), 0
        return bool(data)
