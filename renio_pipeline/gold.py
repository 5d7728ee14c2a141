"""Which rows' own answers can be used to grade. Slow tasks are asked in processes of their own, which may hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.tasks import Task, make_task
from renio_pipeline.types import Row

SECONDS = 10  # that a task may take over one row
BLOCK = 64  # rows that one process gets in a row: few rows then start few processes


def faults(task: Task, rows: Iterable[Row], seconds: int = SECONDS) -> Iterator[str | None]:
    """``task.fault`` of each row, in order; one that takes longer than ``seconds`` is a fault too.

    Raises:
        ConfigError: as the task does.
    """
    if not task.slow:
        yield from map(task.fault, rows)
        return
    workers = [_Worker(*task.recipe, seconds) for _ in range(min(4, os.cpu_count() or 1))]
    waiting: deque[_Worker] = deque()  # for each row that is asked about, who will answer
    try:
        for index, row in enumerate(rows):
            worker = workers[index // BLOCK % len(workers)]
            worker.ask(row)
            waiting.append(worker)
            if len(waiting) > BLOCK * len(workers):
                yield waiting.popleft().answer()
        while waiting:
            yield waiting.popleft().answer()
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """The task in another process, started when the first row comes, and again after a row that ended it."""

    def __init__(self, task: str, options: Mapping[str, Any], seconds: int) -> None:
        self._task, self._options, self._seconds = task, options, seconds
        self._asked: deque[Row] = deque()
        self._connection: Connection | None = None

    def ask(self, row: Row) -> None:
        if self._connection is None:
            self._start()
        self._asked.append(row)
        self._send(row)

    def answer(self) -> str | None:
        """Of the oldest row that has none yet."""
        assert self._connection is not None
        row = self._asked.popleft()
        try:
            found: str | ConfigError | None = self._connection.recv()
        except (EOFError, ConnectionError):
            self.close()
            self._start()
            for left in self._asked:
                self._send(left)
            return f"answer {row.answer!r} takes the task {self._task} more than {self._seconds} s, or ends its process"
        if isinstance(found, ConfigError):
            raise found
        return found

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._connection = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._task, self._options, self._seconds, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def _send(self, row: Row) -> None:
        assert self._connection is not None
        with suppress(ConnectionError):  # it has ended: whoever waits for its answer finds out
            self._connection.send(row)


def _serve(name: str, options: Mapping[str, Any], seconds: int, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    task = make_task(name, options)
    while True:
        try:
            row = connection.recv()
        except EOFError:
            return
        signal.alarm(seconds)  # unhandled, so that it ends the process, also in C code that never looks at signals
        try:
            found: str | ConfigError | None = task.fault(row)
        except ConfigError as error:
            found = error
        signal.alarm(0)
        connection.send(found)
