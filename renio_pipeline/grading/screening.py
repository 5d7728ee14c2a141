"""Which rows a task can grade responses to. Slow tasks are asked in processes of their own, which may hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.tasks import Task, make_task
from renio_pipeline.types import Row, Verdict

SECONDS = 10  # that a task may take over one row
BLOCK = 64  # rows that one process gets in a row: few rows then start few processes
LONGEST = 300  # characters of a fault that are kept

Question = Callable[[Task, Row], str | None]


class Lost(str):
    """Why a row has no answer."""


class Gold:
    """Usage: ``with Gold(task) as gold: gold.faults(rows)``. Processes start when a slow task's first row comes."""

    def __init__(self, task: Task, seconds: int = SECONDS) -> None:
        self._task = task
        count = min(4, os.cpu_count() or 1) if task.slow else 0
        self._workers = [_Worker(*task.recipe, seconds) for _ in range(count)]

    def faults(self, rows: Iterable[Row], *, graded: bool = False) -> Iterator[str | None]:
        """``task.fault`` of each row, in order; one that a slow task takes too long over is a fault too, and with ``graded``
        one on which it has no verdict.

        Raises:
            ConfigError: as the task does.
        """
        for _, found in self._ask(_ungraded if graded else _fault, rows):
            yield found if found is None else found[:LONGEST]

    def verdicts(self, rows: Iterable[Row]) -> Iterator[Verdict | None]:
        """Of each row, in order, the task's verdict on an empty response; None: it has none on any.

        Raises:
            ConfigError: as the task does, and if a slow one takes too long.
        """
        for row, found in self._ask(_verdict, rows):
            if isinstance(found, Lost):
                raise ConfigError(f"task: verify, of an empty response to row {row.id!r}: {found}")
            yield found

    def __enter__(self) -> Gold:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.close()

    def _ask(self, question: Question, rows: Iterable[Row]) -> Iterator[tuple[Row, Any]]:
        if not self._workers:
            yield from ((row, question(self._task, row)) for row in rows)
            return
        waiting: deque[tuple[Row, _Worker]] = deque()  # rows that are asked about, and who will answer
        try:
            for index, row in enumerate(rows):
                worker = self._workers[index // BLOCK % len(self._workers)]
                worker.ask(question, row)
                waiting.append((row, worker))
                if len(waiting) > BLOCK * len(self._workers):
                    row, worker = waiting.popleft()
                    yield row, worker.answer()
            while waiting:
                row, worker = waiting.popleft()
                yield row, worker.answer()
        finally:
            for _, worker in waiting:  # nobody wants to know any more
                worker.close()


def _fault(task: Task, row: Row) -> str | None:
    return task.fault(row)


def _verdict(task: Task, row: Row) -> str | None:
    return task.verify(row, "")


def _ungraded(task: Task, row: Row) -> str | None:
    found = task.fault(row)
    if found is None and task.verify(row, "") is None:
        return f"no answer that task {task.name} can verify"
    return found


class _Worker:
    """The task in another process, started when the first row comes, and again after a row that ended it."""

    def __init__(self, task: str, options: Mapping[str, Any], seconds: int) -> None:
        self._task, self._options, self._seconds = task, options, seconds
        self._asked: deque[tuple[Question, Row]] = deque()
        self._connection: Connection | None = None

    def ask(self, question: Question, row: Row) -> None:
        if self._connection is None:
            self._start()
        self._asked.append((question, row))
        self._send(question, row)

    def answer(self) -> str | None:
        """To the oldest question that has none yet."""
        assert self._connection is not None
        _, row = self._asked.popleft()
        try:
            found: str | ConfigError | None = self._connection.recv()
        except (EOFError, ConnectionError):
            left = list(self._asked)
            self.close()
            for question, each in left:
                self.ask(question, each)
            shown = repr(row.answer)[:100]
            return Lost(f"answer {shown} takes the task {self._task} more than {self._seconds} s, or ends its process")
        if isinstance(found, ConfigError):
            raise found
        return found

    def close(self) -> None:
        """End it, and what it started."""
        self._asked.clear()
        if self._connection is None:
            return
        assert self._process.pid is not None
        with suppress(ProcessLookupError):  # it leads no group yet, or nothing of that is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._connection = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._task, self._options, self._seconds, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def _send(self, question: Question, row: Row) -> None:
        assert self._connection is not None
        with suppress(ConnectionError):  # it has ended: whoever waits for its answer finds out
            self._connection.send((question, row))


def _serve(name: str, options: Mapping[str, Any], seconds: int, connection: Connection) -> None:
    os.setsid()  # what the task starts is ended with it; Ctrl-C is the parent's
    asked: SimpleQueue[tuple[Question, Row] | None] = SimpleQueue()
    # Always reading: a parent that is sending rows reads no answers meanwhile, and neither may wait for the other.
    Thread(target=_receive, args=(connection, asked), daemon=True).start()
    task: Task | None = None
    while (message := asked.get()) is not None:
        question, row = message
        found: str | ConfigError | None
        try:
            task = task or make_task(name, options)
            signal.alarm(seconds)  # unhandled, so that it ends the process, also in C code that never looks at signals
            found = question(task, row)
        except ConfigError as error:
            found = error
        except Exception as error:
            found = Lost(f"task {name} cannot look at it: {type(error).__name__}: {error}"[:LONGEST])
        signal.alarm(0)
        try:
            connection.send(found)
        except ConnectionError:
            return


def _receive(connection: Connection, asked: SimpleQueue[tuple[Question, Row] | None]) -> None:
    with suppress(EOFError, ConnectionError):
        while True:
            asked.put(connection.recv())
    asked.put(None)
