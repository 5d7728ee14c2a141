"""One row of the table: a check of a node, its result, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]
GIB = 2**30
CHECKS = (  # in the order in which they are shown
    "answer",
    "node",
    "pools",
    "versions",
    "gpus",
    "gpu_memory",
    "cuda",
    "shm",
    "object_store",
    "open_files",
    "clock",
    "run_dir",
    "models",
    "metrics_port",
    "ports",
    "gloo",
    "nccl",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    node: str
    check: str  # one of CHECKS; programs may rely on these keys
    level: Level
    seen: str
    advice: str = ""  # what to do; never empty for a fault

    def __post_init__(self) -> None:
        assert self.check in CHECKS, self
        assert self.level != "fault" or self.advice, self


def size(count: float) -> str:
    """``count`` bytes in a readable unit.

    >>> size(64 * 2**20), size(24 * 2**30)
    ('64 MiB', '24 GiB')
    """
    return f"{count / GIB:.3g} GiB" if count >= GIB else f"{count / 2**20:.3g} MiB"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; if there are many, only the first few.

    >>> listed(["a", "b"]), listed(list("abcdef"))
    ('a, b', 'a, b, c, d and 2 more')
    """
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
