"""A run's files of lines: JSON, cut back to what is complete, packed with zstd once nobody writes to them, and read either way.

A packed file has the plain one's name and ``.zst``; everything here takes the plain name.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from renio_pipeline.run_dir.checkpoint_files import write_durably
from renio_pipeline.run_dir.fence import NO_FENCE, Fence, own_file, write_all

ENDING = ".zst"
LONGEST_LINE = 1 << 28  # bytes of content; a response of a million tokens has a tenth of that


def json_line(record: dict[str, Any]) -> bytes:
    """One line of JSON. msgspec is ten times faster than json for hundreds of numbers, but writes non-finite ones as null."""
    import msgspec

    numbers = [
        value if isinstance(value, float) else sum(value) for value in record.values() if isinstance(value, (float, list))
    ]
    if all(map(math.isfinite, numbers)):
        return msgspec.json.encode(record) + b"\n"
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; none if there is no file. An incomplete last line is left out.

    Those of the packed file, where it was packed.
    """
    return (json.loads(line.decode()) for line in lines_of(path) if line.endswith(b"\n"))


def keep_lines(path: Path, last_step: int | None = None) -> None:
    """Cut a file back to its complete lines, and with ``last_step`` to those of steps up to it."""
    if path.exists():
        whole = (line for line in lines_of(path) if line.endswith(b"\n"))
        write_durably(path, b"".join(line for line in whole if last_step is None or json.loads(line)["step"] <= last_step))


def packed_path(path: Path) -> Path:
    """Where a file is once it is packed."""
    return path.with_name(path.name + ENDING)


def plain_paths(folder: Path, pattern: str) -> list[Path]:
    """The plain names of a folder's files that match, packed or not, each once."""
    packed = (path.with_name(path.name.removesuffix(ENDING)) for path in folder.glob(pattern + ENDING))
    return sorted({*folder.glob(pattern), *packed})


def pack(path: Path, fence: Fence = NO_FENCE) -> None:
    """Put the packed file in the place of a plain one, which is complete and final.

    A reader finds the one or the other, or both, which say the same. Raises OSError, LeaseLostError: then the plain one stays.
    """
    import pyarrow as pa

    packed = packed_path(path)
    aside = packed.with_name(f".{packed.name}.{os.getpid()}.aside")
    try:
        with own_file(aside) as file:
            write_all(file, pa.compress(path.read_bytes(), codec="zstd", asbytes=True))
            os.fsync(file.fileno())
        fence.check()
        aside.replace(packed)
    finally:
        aside.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a file, packed or not."""
    path.unlink(missing_ok=True)
    packed_path(path).unlink(missing_ok=True)


def lines_of(path: Path) -> Iterator[bytes]:
    """A file's lines, packed or not, each with its end; none if there is no file.

    Raises:
        ValueError: a packed file is damaged, or a line is longer than ``LONGEST_LINE``, as of a file made to fill the memory.
    """
    for place, opened in ((path, _plain), (packed_path(path), _unpacked), (path, _plain)):  # it may be packed meanwhile
        with suppress(FileNotFoundError), opened(place) as file:
            yield from _checked(place, file)
            return


def _checked(path: Path, file: Any) -> Iterator[bytes]:
    try:
        while line := file.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise ValueError(f"{path}: a line is longer than {LONGEST_LINE >> 20} MiB")
            yield line
    except OSError as error:
        if path.suffix != ENDING:
            raise
        raise ValueError(f"{path}: what was packed is damaged: {error}") from None


def _plain(path: Path) -> Any:
    return path.open("rb")


def _unpacked(path: Path) -> Any:
    import pyarrow as pa

    if not path.exists():
        raise FileNotFoundError(path)
    return io.BufferedReader(_Raw(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")), 1 << 20)


class _Raw(io.RawIOBase):
    """Arrow's stream as Python's buffers take it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._stream.close()
        super().close()
