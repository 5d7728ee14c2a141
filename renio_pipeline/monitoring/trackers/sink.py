"""Experiment trackers: a service or library besides the run, whose failures and delays must not be the run's.

Everything that a tracker does happens on a thread of its own, in order, its first contact included. A call that fails is noted
once and counted; the run goes on, and ``metrics.jsonl`` has every figure.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from renio_pipeline.config import RunConfig
from renio_pipeline.metrics.sink import Sink
from renio_pipeline.run_dir.checkpoint_files import write_durably
from renio_pipeline.run_dir.fence import LeaseLostError
from renio_pipeline.run_dir.secret_values import hidden

Status = Literal["finished", "failed", "interrupted"]
TOLD = 200  # characters of an error; those of HTTP clients go on and on
WAITING = 10_000  # calls that may wait for a tracker that does not answer; later ones are dropped and counted
END_SECONDS = 60.0  # that the end of a run waits for a tracker that still has something to send
INTERRUPTED_SECONDS = 10.0  # the same within the grace period of SIGTERM


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """The run, as a tracker is told of it."""

    config: RunConfig
    overrides: tuple[str, ...] = ()  # of the command line

    def values(self) -> dict[str, Any]:
        """The resolved configuration and the overrides, without passwords."""
        return hidden({**self.config.model_dump(mode="json"), "overrides": list(self.overrides)})

    def flat(self) -> dict[str, Any]:
        """``values`` with dotted names, in one level."""
        found: dict[str, Any] = {}

        def add(name: str, value: Any) -> None:
            if isinstance(value, dict) and value:
                for key, one in value.items():
                    add(f"{name}.{key}" if name else key, one)
            else:
                found[name] = value

        add("", self.values())
        return found

    def identity(self, tracker: str, new: Callable[[], str] = lambda: uuid.uuid4().hex[:8], *, again: bool = False) -> str:
        """The id of the run at the tracker, kept in the run's directory: a resumed run goes on in the same one.

        Args:
            new: makes an id.
            again: whether the one that is kept cannot be used.
        """
        path = self.config.directory / f"{tracker}-id.txt"
        if again or not path.is_file():
            write_durably(path, new() + "\n")
        return path.read_text(encoding="utf-8").strip()


class Tracker(ABC):
    """A run at a tracker, which the constructor begins or resumes. Any method may take long, and raise anything."""

    where: str  # where the user finds the run: an address, or a command

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    @abstractmethod
    def count(self, step: int, totals: Mapping[str, int]) -> None: ...

    @abstractmethod
    def finish(self, status: Status, error: str | None) -> None: ...


class TrackerSink(Sink):
    """Hands everything to a tracker, on the tracker's thread."""

    def __init__(self, name: str, begin: Callable[[], Tracker], note: Callable[[str], None]) -> None:
        """
        Args:
            name: of the tracker.
            begin: makes the tracker.
            note: tells the user something.
        """
        self._name, self._begin, self._note = name, begin, note
        self._calls: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(WAITING)
        self._status: Status = "interrupted"
        self._error: str | None = None
        self._lost = 0  # calls that failed or were dropped
        self._step, self._totals = 0, {}  # type: int, dict[str, int]
        self._closed = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step, figures = step, dict(metrics)
        self._put(lambda tracker: tracker.log(step, figures))

    def count(self, totals: Mapping[str, int]) -> None:
        if any(totals.values()) and totals != self._totals:
            step, self._totals = self._step, dict(totals)
            given = self._totals
            self._put(lambda tracker: tracker.count(step, given))

    async def on_run_end(self, error: Exception | None) -> None:
        self.ends(error)

    def ends(self, error: Exception | None) -> None:
        """The run has done its last step, or has failed with ``error``. Unless this is called, it was interrupted."""
        self._abandoned = isinstance(error, LeaseLostError)  # the run at the tracker is another driver's now
        self._status = "failed" if error else "finished"
        self._error = str(hidden(f"{type(error).__name__}: {error}")) if error else None

    def close(self) -> None:
        """End the run at the tracker. Returns when it is there, or after a while."""
        if self._closed or self._abandoned:
            return
        self._closed = True
        status, error, end = self._status, self._error, time.monotonic()
        end += INTERRUPTED_SECONDS if status == "interrupted" else END_SECONDS
        for call in (lambda tracker: tracker.finish(status, error), None):
            try:
                self._calls.put(call, timeout=max(0.0, end - time.monotonic()))
            except queue.Full:
                self._lost += 1
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._note(f"{self._name}: it still has {self._calls.qsize() or 1} records to take; the run does not wait longer")
        elif self._lost:
            self._note(f"{self._name}: {self._lost} records did not reach it; metrics.jsonl has every figure")

    def _put(self, call: Callable[[Tracker], None]) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._lost += 1

    def _work(self) -> None:
        tracker = self._begun()
        while (call := self._calls.get()) is not None:
            if tracker is None:
                continue
            try:
                call(tracker)
            except Exception as error:
                self._lost += 1
                if self._lost == 1:
                    self._note(f"{self._name}: a record was not taken ({_told(error)}); the run goes on")

    def _begun(self) -> Tracker | None:
        try:
            tracker = self._begin()
        except Exception as error:
            self._note(f"{self._name}: it cannot be used ({_told(error)}); the run goes on without it")
            return None
        self._note(f"{self._name}: {tracker.where}")
        return tracker


@contextmanager
def until_the_end(sinks: Iterable[Sink]) -> Iterator[None]:
    """Within the context the run may fail, also before its first step: the trackers among ``sinks`` are told, and closed."""
    trackers = [sink for sink in sinks if isinstance(sink, TrackerSink)]
    try:
        yield
    except Exception as error:
        for tracker in trackers:
            tracker.ends(error)
        raise
    finally:
        for tracker in trackers:
            tracker.close()


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = str(hidden(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__))
    return text if len(text) <= TOLD else f"{text[:TOLD]} ..."
