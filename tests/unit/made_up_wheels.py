"""Wheels for tests of the GPU kit."""

from __future__ import annotations

import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, files: dict[str, bytes], executable: str = "") -> Path:
    """Of version 1.5, with these files; one of them may be executable."""
    path = folder / f"{name}-1.5-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            info = zipfile.ZipInfo(file)
            info.external_attr = (0o755 if file == executable else 0o644) << 16
            archive.writestr(info, data)
    return path
