"""Text files that are compressed, with gzip or zstd: unpacked piece by piece, so that memory does not grow with them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

ENDINGS = (".gz", ".zst")
_KINDS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by the first bytes: a download from the hub has no ending
_OTHERS = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z"}
_PIECE = 1 << 20  # bytes


class Unreadable(OSError):
    """A compressed file that is damaged, or whose format is not read here."""


def plain_name(name: str) -> str:
    """A file's name without the ending of its compression: ``a.jsonl`` of ``a.jsonl.gz``."""
    return name.removesuffix(next((ending for ending in ENDINGS if name.endswith(ending)), ""))


def opened(path: str | Path) -> BinaryIO:
    """The file, open for reading; of a compressed one its content, which is unpacked to a temporary file that ends with it.

    Raises:
        Unreadable: it is damaged, or compressed in another way.
        OSError: it cannot be read, or there is no room for its content in the folder for temporary files.
    """
    kind = _kind_of(path)
    if kind is None:
        return Path(path).open("rb")
    content = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller's to close
    try:
        with _unpacked(path, kind) as packed:
            while piece := _read(packed, _PIECE):
                content.write(piece)
        content.seek(0)
    except BaseException:
        content.close()
        raise
    return content


def beginning(path: str | Path, count: int) -> bytes:
    """The first bytes of a file's content, at most ``count``. Raises as ``opened``."""
    kind = _kind_of(path)
    if kind is None:
        with Path(path).open("rb") as file:
            return file.read(count)
    with _unpacked(path, kind) as packed:
        return _read(packed, count)


def _kind_of(path: str | Path) -> str | None:
    """How a file is compressed; None if it is not."""
    with Path(path).open("rb") as file:
        begin = file.read(8)
    for mark, name in _OTHERS.items():
        if begin.startswith(mark):
            raise Unreadable(f"it is packed with {name}; unpack it, or pack it with gzip or zstd")
    found = next((kind for mark, kind in _KINDS.items() if begin.startswith(mark)), None)
    if found is None and str(path).endswith(ENDINGS):
        raise Unreadable("its name says that it is compressed, and it is not; give it the name of what it is")
    return found


def _unpacked(path: str | Path, kind: str) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(str(path)), kind)


def _read(packed: Any, count: int) -> bytes:
    try:
        return bytes(packed.read(count))
    except OSError as error:
        raise Unreadable(f"it is damaged: {error}") from None
