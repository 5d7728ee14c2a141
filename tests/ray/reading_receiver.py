"""A receiver of weights that only reads: what a sync costs before any engine's load, and proof that nothing is copied."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors.weight_sync.chunked_arrays import join_arrays
from renio_pipeline.types import Version


@dataclass(kw_only=True)
class Reading:
    """One update, as its receiver saw it. CPU-seconds are this process's, all threads."""

    bytes: int = 0
    fetch_seconds: float = 0.0  # wall, until the arrays are there
    receive_cpu: float = 0.0  # Ray, the verbs, and what a first reading costs more than a second: mapping the pages
    read_cpu: float = 0.0  # of every byte, for the second time
    checksum: int = 0
    shared: bool = True  # every array lies in a mapping of shared memory
    private_bytes: int = 0  # that this process's own memory has grown by


class ReadingReceiver:
    """The verbs of a receiver. It holds what it was given until it is given more, as an engine does until its load ends."""

    def start_weight_update(self) -> None:
        self._held: list[np.ndarray] = []
        self._reading = Reading(private_bytes=-_private_bytes())
        self._cpu = time.process_time()

    def update_weights(self, update_info: dict[str, Any]) -> float:
        started = time.perf_counter()
        arrays = join_arrays(ray.get(update_info["ref"], timeout=update_info["seconds"]), update_info["pieces"])
        fetched = time.perf_counter() - started
        self._reading.checksum = (self._reading.checksum + checksum(arrays)) % 2**64
        before = time.process_time()
        checksum(arrays)
        self._reading.read_cpu += time.process_time() - before
        self._reading.fetch_seconds += fetched
        self._reading.bytes += sum(map(len, arrays))
        self._held += arrays
        return fetched

    def finish_weight_update(self, version: Version) -> None:
        reading = self._reading
        reading.receive_cpu = time.process_time() - self._cpu - 2 * reading.read_cpu
        reading.private_bytes += _private_bytes()
        mappings = _shared_mappings()
        reading.shared = all(_within(array, mappings) for array in self._held)

    def reading(self) -> Reading:
        return self._reading


def checksum(arrays: Sequence[np.ndarray]) -> int:
    """Of every byte, eight at a time where they are as many; the same however the bytes are divided into such arrays."""
    parts = (a.view(np.uint64) if len(a) % 8 == 0 else a for a in arrays)
    return sum(int(np.add.reduce(part, dtype=np.uint64)) for part in parts) % 2**64


def _private_bytes() -> int:
    """Anonymous memory of this process: what is not a view of shared memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("Anonymous:"))
    return int(kilobytes) * 1024


def _shared_mappings() -> list[tuple[int, int]]:
    """Address ranges that are mapped shared (``s``) from a file system in memory."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, mode, *_ = line.split()
        if mode.endswith("s") and "/dev/shm/" in line:
            start, end = (int(address, 16) for address in span.split("-"))
            found.append((start, end))
    return found


def _within(array: np.ndarray, mappings: Sequence[tuple[int, int]]) -> bool:
    first = array.ctypes.data
    return any(start <= first and first + len(array) <= end for start, end in mappings)
