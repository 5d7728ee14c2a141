"""Peaks of a GPU's memory; on a CPU there are none to measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.gpu.settings import GIB, Settings


@dataclass
class Peak:
    """Bytes that torch had allocated; None until the block has ended, and on a CPU."""

    total: int | None = None  # at most
    extra: int | None = None  # at most, beyond those at the block's start


@contextmanager
def peak(settings: Settings) -> Iterator[Peak]:
    import torch

    found = Peak()
    if not settings.on_gpu:
        yield found
        return
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield found
    torch.cuda.synchronize()
    found.total = torch.cuda.max_memory_allocated()
    found.extra = found.total - before


def gib(count: float) -> float:
    return count / GIB
