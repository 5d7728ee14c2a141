"""What is measured of the driver while it runs."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import types
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from renio_pipeline.metrics.sink import Sink
from tests.benchmarks.control.clock import REAL

SETTLE = 0.2  # share of the run before memory counts: caches and the allocator fill
_NO_STATE = (
    type, types.ModuleType, types.FunctionType, types.MethodType, types.CodeType, types.FrameType, threading.Thread,
    asyncio.AbstractEventLoop, asyncio.Future,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Slope:
    """A least-squares line through points over hours, with the 95 % interval of its slope."""

    each_hour: float
    low: float
    high: float
    mean: float

    @classmethod
    def of(cls, hours: Sequence[float], values: Sequence[float]) -> Slope:
        x, y = np.asarray(hours), np.asarray(values, np.float64)
        centred = x - x.mean()
        slope = float((centred * (y - y.mean())).sum() / (centred**2).sum())
        rest = y - y.mean() - slope * centred
        error = float(np.sqrt((rest**2).sum() / max(1, len(x) - 2) / (centred**2).sum()))
        return cls(each_hour=slope, low=slope - 2 * error, high=slope + 2 * error, mean=float(y.mean()))


@dataclass
class Watch(Sink):
    """Notes the state of everything every ``every`` steps."""

    every: int
    run_dir: Path
    parts: Mapping[str, Any]  # by name, whose memory is measured apart
    looked: Callable[[], None] = lambda: None  # called after each look
    hours: list[float] = field(default_factory=list)
    found: dict[str, list[float]] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)  # seconds of the loop's thread, at each step
    _began: float = field(default_factory=lambda: time.time())

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.cpu.append(time.thread_time())
        if step % self.every == 0:
            self.hours.append((time.time() - self._began) / 3600)
            for name, value in self._look().items():
                self.found.setdefault(name, []).append(value)
            if len(self.hours) >= 5:
                self.looked()

    def _look(self) -> dict[str, float]:
        gc.collect()
        process = psutil.Process()
        sizes = {f"{name}, kB": deep_size(part) / 1e3 for name, part in self.parts.items()}
        return {
            "driver's memory, MB": process.memory_info().rss / 1e6, "objects": len(gc.get_objects()), **sizes,
            "files open": process.num_fds(), "threads": process.num_threads(),
            "samples/, MB": folder_size(self.run_dir / "samples") / 1e6,
            "ledger/, MB": folder_size(self.run_dir / "ledger") / 1e6,
        }  # fmt: skip

    def cpu_by_thread(self) -> dict[str, float]:
        """Seconds of CPU of each thread that is alive, by name."""
        names = {thread.native_id: thread.name.partition("_")[0] for thread in threading.enumerate()}
        found: dict[str, float] = {}
        for thread in psutil.Process().threads():
            name = names.get(thread.id, "other")
            found[name] = found.get(name, 0.0) + thread.user_time + thread.system_time
        return found

    def slopes(self) -> dict[str, Slope]:
        first = int(SETTLE * len(self.hours))
        return {name: Slope.of(self.hours[first:], values[first:]) for name, values in self.found.items()}


class Scraper:
    """A Prometheus as the endpoint sees it: asks again and again, while the driver's loop never rests. Usage: a context."""

    def __init__(self, port: int, pause: float = 0.5) -> None:
        self._url, self._pause = f"http://127.0.0.1:{port}/metrics", pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scrape, daemon=True)
        self.seconds: list[float] = []
        self.bytes = 0

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _scrape(self) -> None:
        while not self._over.wait(self._pause):
            start = REAL()
            try:
                with urllib.request.urlopen(self._url, timeout=60) as answer:
                    self.bytes = len(answer.read())
            except OSError:  # the run has ended
                return
            self.seconds.append(REAL() - start)

    def quantile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


def deep_size(root: Any) -> int:
    """The bytes of an object and of all that it alone or with others refers to, but for code, modules and threads."""
    seen, left, total = set[int](), [root], 0
    while left:
        found = left.pop()
        if id(found) in seen or isinstance(found, _NO_STATE):
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        left += gc.get_referents(found)
    return total


def folder_size(path: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
