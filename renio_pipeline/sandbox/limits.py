"""What a box allows its program."""

from __future__ import annotations

import math
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Mode = Literal["strict", "weak"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one job. ``memory_mb`` bounds the address space of each process and the resident memory of all together."""

    seconds: float = 6.0  # CPU time of each process, rounded up; the caller of ``reply`` bounds the rest
    memory_mb: int = 1024
    processes: int = 16
    files_mb: int = 32  # all files together, in MiB
    output_kb: int = 1024
    open_files: int = 64

    def settings(self, mode: Mode, folder: str) -> dict[str, Any]:
        return {
            "strict": mode == "strict", "folder": folder, "cpu": math.ceil(self.seconds), "memory": self.memory_mb << 20,
            "processes": self.processes, "files": self.files_mb << 20, "output": self.output_kb << 10,
            "open_files": self.open_files, "packages": _packages(),
            "visible": ["/usr", "/lib", "/lib64", str(Path(sys.base_prefix).resolve()), sys.base_prefix, *_packages()],
        }  # fmt: skip


def _packages() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
