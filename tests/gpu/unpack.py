"""Turn a kit, as `tests.gpu.kit` writes it, into a folder for PYTHONPATH.

    python tests/gpu/unpack.py KIT FOLDER

It needs the standard library alone, so that it runs on a machine that has nothing else.

A kit is a folder with `manifest.json` and its parts. The parts, one after the other, are a stream of `.tar.xz` archives, one
for each package; a part ends where its size does, in the middle of an archive too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
BLOCK = 2**20  # bytes


class KitError(ValueError):
    """The kit is incomplete or damaged. The text names the file."""


def read_manifest(kit: Path) -> dict[str, Any]:
    """Raises KitError if there is none, or it has a format that this module does not know."""
    try:
        manifest: dict[str, Any] = json.loads((kit / MANIFEST).read_text())
    except FileNotFoundError:
        raise KitError(f"{kit} holds no {MANIFEST}: it is not a kit, or the manifest was not copied") from None
    except ValueError as error:
        raise KitError(f"{kit / MANIFEST} is damaged: {error}; copy it again") from None
    if manifest.get("format") != FORMAT:
        raise KitError(f"{kit / MANIFEST} has format {manifest.get('format')!r}, and this script reads {FORMAT}")
    return manifest


def unpack(kit: Path, folder: Path) -> dict[str, Any]:
    """Unpack a kit into `folder`, in place of what it holds. Returns the manifest. Does nothing if it holds this kit already.

    Raises:
        KitError: a part is missing, or has another size or checksum than the manifest says; `folder` is left as it was.
    """
    manifest = read_manifest(kit)
    if (folder / MANIFEST).exists() and json.loads((folder / MANIFEST).read_text()) == manifest:
        return manifest
    _check_parts(kit, manifest["parts"])
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    stream = _Joined([kit / part["file"] for part in manifest["parts"]])
    for package in manifest["packages"]:
        _extract(_Limited(stream, package["bytes"]), package, partial)
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return manifest


def _check_parts(kit: Path, parts: list[dict[str, Any]]) -> None:
    missing = [part["file"] for part in parts if not (kit / part["file"]).exists()]
    if missing:
        raise KitError(f"{kit} lacks {', '.join(missing)} of {len(parts)} parts: copy what is missing")
    for part in parts:
        path = kit / part["file"]
        if path.stat().st_size != part["bytes"]:
            raise KitError(f"{path} has {path.stat().st_size} bytes instead of {part['bytes']}: copy it again")
        if sha256_of(path) != part["sha256"]:
            raise KitError(f"{path} does not have the checksum in {MANIFEST}: copy it again")


def _extract(archive: _Limited, package: dict[str, Any], folder: Path) -> None:
    with lzma.LZMAFile(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        tar.extractall(folder, filter="data")  # which refuses paths outside of the folder
    archive.skip_rest()
    if archive.sha256 != package["sha256"]:
        raise KitError(f"package {package['name']} does not have the checksum in {MANIFEST}: make the kit again")


def sha256_of(path: Path) -> str:
    """In hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class _Joined:
    """Files, read as one."""

    def __init__(self, paths: list[Path]) -> None:
        self._blocks, self._rest = self._read_all(paths), b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._blocks, b"")
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    @staticmethod
    def _read_all(paths: list[Path]) -> Iterator[bytes]:
        for path in paths:
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    yield block


class _Limited(io.RawIOBase):
    """The next `size` bytes of a stream, and their checksum."""

    def __init__(self, stream: _Joined, size: int) -> None:
        self._stream, self._left, self._digest = stream, size, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(found)
        self._digest.update(found)
        return found

    def skip_rest(self) -> None:
        while self.read(BLOCK):
            pass

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description="Unpack a kit into a folder for PYTHONPATH.")
    parser.add_argument("kit", type=Path, help="the folder with manifest.json and all parts")
    parser.add_argument("folder", type=Path, help="what to make; what it holds is replaced")
    args = parser.parse_args()
    try:
        manifest = unpack(args.kit, args.folder)
    except KitError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(manifest['packages'])} packages for Python {manifest['python']} in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
