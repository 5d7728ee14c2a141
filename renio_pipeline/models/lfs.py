"""Git LFS pointers: what a clone without Git LFS has in the place of large files."""

from __future__ import annotations

import re
from pathlib import Path

from renio_pipeline.config import ConfigError

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?size (\d+)\n")
_LARGEST = 1024  # bytes of a pointer, by its specification


def pointer_size(file: Path) -> int | None:
    """The size in bytes of the file that ``file`` is a pointer to; None if it is none. Raises OSError."""
    if file.stat().st_size >= _LARGEST:
        return None
    found = _POINTER.match(file.read_bytes())
    return int(found[1]) if found else None


def refuse_pointer(file: Path, key: str) -> None:
    """Raises ConfigError if the file is a pointer. ``key``: the configuration key that names it or its folder."""
    if (size := pointer_size(file)) is not None:
        raise ConfigError(
            f"{key}: {file} is a Git LFS pointer, and the file of {size} bytes that it stands for is not here; run git lfs "
            f"install and git lfs pull in {file.parent}"
        )
