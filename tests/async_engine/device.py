"""A device that computes nothing but which weights computed what.

Like a GPU's stream, it takes batches in order and finishes them in its own time, while whoever launched them goes on.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

MIXED = -1  # depends on several versions of the weights, or on KV entries that are lost or were never written
DEADLINE = 120.0  # seconds after which a wait counts as a hang


@dataclass(frozen=True)
class Row:
    """One request's part of a batch: positions [start, end) of its sequence."""

    slots: Sequence[int]  # [end] KV slots of the sequence from its beginning
    start: int
    end: int


@dataclass(frozen=True)
class Batch:
    rows: Sequence[Row]
    versions: Future[list[int]] = field(default_factory=Future)  # of each row: what its last position was computed by


class Device:
    """The weights are two halves. A batch reads the first half when it begins and the second one at its end.

    Every KV slot remembers the version that wrote it. A token therefore shows when the weights changed beneath its batch,
    and when its attention read KV entries of other weights.

    Args:
        seconds: duration of a batch. Every sixteenth takes twenty times as long: an update often begins in the middle of one.
    """

    def __init__(self, seconds: float) -> None:
        self.weights = [0, 0]
        self.asleep = False
        self.broken: Exception | None = None  # every batch and every wait ends with it, as after a fault of a real device
        self.launched = 0  # batches
        self.finished = 0
        self.most_in_flight = 0
        self.torn = 0  # batches beneath which the weights changed, or which ran while the memory was given away
        self.waits = 0  # how often somebody waited for everything that was launched
        self._seconds = seconds
        self._kv: dict[int, int] = {}  # slot: version that wrote it
        self._permits = math.inf
        self._changed = threading.Condition()
        self._stream: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="device", daemon=True).start()

    def launch(self, rows: Sequence[Row]) -> Future[list[int]]:
        batch = Batch(rows)
        with self._changed:
            self.launched += 1
            self.most_in_flight = max(self.most_in_flight, self.launched - self.finished)
            self._changed.notify_all()
        self._stream.put(batch)
        return batch.versions

    def synchronize(self) -> None:
        """Wait until all that was launched is finished."""
        with self._changed:
            self.waits += 1
            self._changed.notify_all()
        self.until(lambda: self.finished == self.launched)
        if self.broken is not None:
            raise self.broken

    def allow(self, batches: float) -> None:
        """Let so many more batches finish. The one after them stays half done, until more are allowed."""
        with self._changed:
            self._permits = batches
            self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition over the counters."""
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE), "the device never came to what was waited for"

    def stuck(self) -> bool:
        """It may finish no more, and the engine waits for the first of the two batches that are left."""
        return self._permits == 0 and self.launched == self.finished + 2

    def drop_cache(self) -> None:
        self._kv.clear()

    def close(self) -> None:
        """End the thread after what was launched."""
        self.allow(math.inf)
        self._stream.put(None)

    def _run(self) -> None:
        while (batch := self._stream.get()) is not None:
            first = self.weights[0]
            time.sleep(self._seconds * (1 if self.finished % 16 else 20))
            with self._changed:
                self._changed.wait_for(lambda: self._permits > 0)
                self._permits -= 1
            read = {first, self.weights[1]} | ({MIXED} if self.asleep else set())
            self.torn += len(read) > 1
            versions = [self._compute(row, read) for row in batch.rows]
            with self._changed:
                self.finished += 1
                self._changed.notify_all()
            if self.broken is None:
                batch.versions.set_result(versions)
            else:
                batch.versions.set_exception(self.broken)

    def _compute(self, row: Row, read: set[int]) -> int:
        written = next(iter(read)) if len(read) == 1 else MIXED
        for slot in row.slots[row.start : row.end]:
            self._kv[slot] = written
        used = read | {self._kv.get(slot, MIXED) for slot in row.slots[: row.end]}
        return used.pop() if len(used) == 1 else MIXED
