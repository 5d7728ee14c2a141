"""Sizes, and what work costs: time, memory, a report."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GIB = 2**30
Work = Callable[[], Any]
STARTED = time.perf_counter()


@dataclass(frozen=True)
class Sizes:
    tokens: tuple[int, ...] = (4096, 8192)
    vocabulary: int = 151936
    hidden: int = 2048
    teacher_hidden: int = 4096
    intermediate: int = 6144
    layers: int = 28
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    samples: int = 64
    longest: int = 4096
    micro_batch_tokens: int = 16384
    repeats: int = 10


TINY = Sizes((48, 64), 1000, 32, 48, 64, 2, 2, 1, 16, 12, 60, 128, 2)


class Bench:
    def __init__(self, sizes: Sizes, device: str) -> None:
        self.sizes, self.device = sizes, device
        self.report: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__, "sizes": vars(sizes)}
        self.rows: list[str] = []

    def draw(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=torch.float32).mul_(scale).bfloat16()

    def sync(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def cost(self, work: Work, repeats: int | None = None) -> dict[str, float]:
        """Median, least and most milliseconds, and the peak of extra GiB, of work that leaves nothing new behind."""
        work()
        self.sync()
        before = 0
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        ms = []
        for _ in range(repeats or self.sizes.repeats):
            self.sync()
            start = time.perf_counter()
            work()
            self.sync()
            ms.append(1e3 * (time.perf_counter() - start))
        memory = (torch.cuda.max_memory_allocated() - before) / GIB if self.device == "cuda" else float("nan")
        return {"ms": statistics.median(ms), "least": min(ms), "most": max(ms), "gib": memory}

    def record(self, section: str, name: str, cost: dict[str, Any], floor: float | None = None) -> None:
        if floor is not None:
            cost["over_floor"] = cost["ms"] / floor
        self.report.setdefault(section, {})[name] = cost
        numbers = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in cost.items())
        self.rows.append(f"{section:<28} {name:<34} {numbers}")
        print(f"[{time.perf_counter() - STARTED:6.1f} s] {self.rows[-1]}", flush=True)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """An error is recorded, and the next section goes on."""
        try:
            yield
        except Exception as error:
            self.report.setdefault("errors", {})[name] = traceback.format_exc()[-3000:]
            self.rows.append(f"{name:<28} failed: {type(error).__name__}: {str(error)[:150]}")
            print(self.rows[-1], flush=True)
        finally:
            if self.device == "cuda":
                torch.cuda.empty_cache()


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"
