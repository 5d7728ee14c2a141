"""``trace.json``: the last steps as Chrome trace events, which Perfetto opens."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from renio_pipeline.metrics.sink import Sink
from renio_pipeline.monitoring.replicas import Place
from renio_pipeline.monitoring.spans import Rows, Span, Way, ways
from renio_pipeline.run_dir.fence import NO_FENCE, Fence, own_file, write_all
from renio_pipeline.stages.outcomes import SkippedStep, StepResult

Event = dict[str, Any]
ORDER = ("generator", "teacher", "weighting", "trainer")  # pools from top to bottom
CLOSE_SECONDS = 30.0  # allowed for the last write

logger = logging.getLogger(__name__)


class Trace(Sink):
    """Layout and writing happen on a separate thread, so the step itself loses no time.

    The file is complete after each step; if steps are faster than the writing, some are written together.
    """

    def __init__(self, path: Path, steps: int, fence: Fence = NO_FENCE) -> None:
        """``steps``: how many of the last steps the file shows."""
        self._path, self._fence = path, fence
        self._steps: deque[str] = deque(maxlen=steps)
        self._origin, self._began = time.perf_counter(), time.time()
        self._rows, self._places = Rows(), dict[Place, tuple[int, int]]()
        self._ids = itertools.count(1)
        self._queue: SimpleQueue[StepResult | SkippedStep | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="trace", daemon=True)
        self._thread.start()

    def observe(self, result: StepResult | SkippedStep) -> None:
        self._queue.put(result)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while (result := self._queue.get()) is not None:
            try:
                self._steps.append(",\n".join(map(json.dumps, self._events(result))))
                if self._queue.qsize() <= 1:  # the one entry may be the end marker
                    self._write()
            except Exception as error:  # such as a full disk: no reason to end the run
                logger.warning("trace.json of step %d: %s: %s", result.step, type(error).__name__, error)
            del result  # it keeps the step's payload in memory

    def _write(self) -> None:
        about = {"displayTimeUnit": "ms", "otherData": {"began": self._began, "steps": len(self._steps)}}
        names = ",\n".join(map(json.dumps, self._names()))
        body = ",\n".join(filter(None, [names, *self._steps]))
        aside = self._path.with_name(f".{self._path.name}.aside")  # replaced atomically, but without waiting for the disk
        self._fence.check()
        with own_file(aside) as file:
            write_all(file, f'{json.dumps(about)[:-1]}, "traceEvents": [\n{body}\n]}}\n'.encode())
        aside.replace(self._path)

    def _events(self, result: StepResult | SkippedStep) -> Iterator[Event]:
        for span in self._rows.spans(result):
            yield self._slice(span, result.step)
        if isinstance(result, StepResult):
            for way in ways(result):
                yield from self._arrow(way)

    def _slice(self, span: Span, step: int) -> Event:
        start = self._micros(span.start)
        event = {"ph": "X", "name": span.name, "cat": "step", "ts": start, "dur": max(1, self._micros(span.end) - start)}
        return event | self._place(span.place) | {"args": {"step": step, "samples": span.samples}}

    def _arrow(self, way: Way) -> Iterator[Event]:
        arrow: Event = {"name": "sample", "cat": "sample", "id": next(self._ids), "args": {"sample_id": way.sample_id}}
        if way.off_policy is not None:
            arrow["args"]["off_policy"] = way.off_policy
        last = len(way.stops) - 1
        for i, (place, at) in enumerate(way.stops):
            # Just before the writing slice ends, and just after the others begin: an arrow attaches to the slice around it.
            moment = self._micros(at) - 1 if i == 0 else self._micros(at)
            phase = "s" if i == 0 else "f" if i == last else "t"
            yield {"ph": phase, "ts": moment, **arrow, **self._place(place), **({"bp": "e"} if phase == "f" else {})}

    def _place(self, place: Place) -> dict[str, int]:
        if place not in self._places:
            pools = {pool: pid for (pool, _), (pid, _) in self._places.items()}
            pid = pools.get(place[0], len(pools) + 1)
            self._places[place] = (pid, int(place[1]) if place[1].isdigit() else len(self._places))
        pid, tid = self._places[place]
        return {"pid": pid, "tid": tid}

    def _names(self) -> Iterator[Event]:
        for (pool, replica), (pid, tid) in self._places.items():
            at = {"ph": "M", "pid": pid, "tid": tid}
            row = f"rank {replica}" if pool == "trainer" else f"{pool} {replica}"
            yield {"name": "process_name", **at, "args": {"name": pool}}
            yield {"name": "process_sort_index", **at, "args": {"sort_index": ORDER.index(pool.partition(".")[0])}}
            yield {"name": "thread_name", **at, "args": {"name": row}}

    def _micros(self, at: float) -> int:
        return round((at - self._origin) * 1e6)
