"""Writes a kit: packages as `.tar.xz` archives, end to end in parts of a given size. `unpack.py` has the format."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.unpack import FORMAT, MANIFEST, sha256_of

PRESET = 9  # of xz: a window of 64 MiB, which the repetitive kernels of CUDA libraries need


@dataclass
class PartWriter:
    """A file that is cut into parts of at most `part_bytes`."""

    folder: Path
    part_bytes: int
    parts: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._file: Any = None

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while len(view):
            if self._file is None:
                self._begin()
            taken = view[: self.part_bytes - self._written]
            self._file.write(taken)
            self._digest.update(taken)
            self._written += len(taken)
            view = view[len(taken) :]
            if self._written == self.part_bytes:
                self.end()
        return len(data)

    def end(self) -> None:
        """Close the part under way."""
        if self._file is not None:
            self._file.close()
            self.parts.append({"file": self._name, "bytes": self._written, "sha256": self._digest.hexdigest()})
            self._file = None

    def _begin(self) -> None:
        self._name = f"part-{len(self.parts):02d}"
        self._file = (self.folder / self._name).open("wb")
        self._digest, self._written = hashlib.sha256(), 0


class _Counted:
    """Passes on what is written, and knows its size and checksum."""

    def __init__(self, below: PartWriter) -> None:
        self._below, self.digest, self.size = below, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._below.write(data)


def write_kit(
    folder: Path, wheels: list[tuple[Path, Callable[[str], bool] | None]], *, python: str, part_bytes: int
) -> dict[str, Any]:
    """Write the wheels' files as a kit.

    wheels: each with what says whether a file of it is wanted (by its path in the wheel); None: all of them.
    part_bytes: at most, of each part. Returns the manifest, which is written last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [folder / MANIFEST, *folder.glob("part-*")]:
        old.unlink(missing_ok=True)
    writer, packages = PartWriter(folder, part_bytes), []
    for wheel, wanted in wheels:
        packages.append(_write_wheel(writer, wheel, wanted or (lambda path: True)))
    writer.end()
    manifest = {"format": FORMAT, "python": python, "packages": packages, "parts": writer.parts}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _write_wheel(writer: PartWriter, wheel: Path, wanted: Callable[[str], bool]) -> dict[str, Any]:
    below, unpacked = _Counted(writer), 0
    with (
        zipfile.ZipFile(wheel) as archive,
        lzma.LZMAFile(below, "w", preset=PRESET) as packed,  # type: ignore[call-overload]
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for info in archive.infolist():
            path = _installed_path(info.filename)
            if info.is_dir() or path is None or not wanted(info.filename):
                continue
            entry = tarfile.TarInfo(path)
            entry.size = info.file_size
            entry.mode = 0o755 if (info.external_attr >> 16) & 0o111 else 0o644
            tar.addfile(entry, archive.open(info))
            unpacked += info.file_size
    name, version = wheel.name.split("-")[:2]
    return {
        "name": name, "version": version, "bytes": below.size, "sha256": below.digest.hexdigest(),
        "unpacked_bytes": unpacked, "wheel": wheel.name, "wheel_bytes": wheel.stat().st_size,
        "wheel_sha256": sha256_of(wheel),
    }  # fmt: skip


def _installed_path(path: str) -> str | None:
    """Where an installer puts a wheel's file below site-packages; None for scripts, headers and the like.

    >>> _installed_path("ray-2.60.0.data/purelib/ray/x.py")
    'ray/x.py'
    """
    found = re.fullmatch(r"[^/]+\.data/([^/]+)/(.+)", path)
    if found is None:
        return path
    return found[2] if found[1] in ("purelib", "platlib") else None
