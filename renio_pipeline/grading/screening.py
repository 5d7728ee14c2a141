"""Row screening: which rows a task can grade responses to. Slow tasks are asked in worker processes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from threading import Thread
from typing import Any, TypeVar

from renio_pipeline.config import ConfigError
from renio_pipeline.grading.questions import MOST_CHARACTERS, QUESTIONS
from renio_pipeline.grading.workers import Answer, Question, WorkerPool
from renio_pipeline.sandbox.deadline import Deadline
from renio_pipeline.tasks import Task
from renio_pipeline.types import Row, Verdict

T = TypeVar("T")
DEADLINE = Deadline.of(10.0)  # for one row
BLOCK = 64  # rows that one worker gets at a time, so that few rows start few workers


class RowScreening:
    """Usage: ``with RowScreening(task) as screening: screening.faults(rows)``. Workers start with a slow task's first row."""

    def __init__(self, task: Task, deadline: Deadline = DEADLINE) -> None:
        """``deadline``: for a slow task's answer about one row."""
        self._task = task
        self._pool = _BlockingPool(task, deadline) if task.slow else None

    def faults(self, rows: Iterable[Row], *, graded: bool = False) -> Iterator[str | None]:
        """Why each row cannot be used, in order: ``task.fault``, or that a slow task gives no answer about it. With ``graded``
        a row on which the task has no verdict cannot be used either.

        Raises:
            ConfigError: as the task does.
        """
        for row, answer in self._ask("ungraded" if graded else "fault", rows):
            yield self._trouble(row, answer) or answer.value

    def verdicts(self, rows: Iterable[Row]) -> Iterator[Verdict | None]:
        """The task's verdict on an empty response to each row, in order; None: it has none on any response.

        Raises:
            ConfigError: as the task does, and where a slow one gives no answer.
        """
        for row, answer in self._ask("verdict", rows):
            if trouble := self._trouble(row, answer):
                raise ConfigError(f"task: verify, of an empty response to row {row.id!r}: {trouble}")
            yield answer.value

    def __enter__(self) -> RowScreening:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def _ask(self, verb: str, rows: Iterable[Row]) -> Iterator[tuple[Row, Answer]]:
        if self._pool is None:
            yield from ((row, Answer(value=QUESTIONS[verb](self._task, row, ""))) for row in rows)
        else:
            yield from self._pool.ask(verb, rows)

    def _trouble(self, row: Row, answer: Answer) -> str | None:
        """Why there is no answer about a row."""
        if answer.given_up is not None:
            shown = repr(row.answer)[:100]
            return f"answer {shown} gets no answer of task {self._task.name} in two tries: its worker {answer.given_up}"
        if answer.error is None:
            return None
        if answer.error.config:
            raise ConfigError(answer.error.text)
        return f"task {self._task.name} cannot look at it: {answer.error.kind}: {answer.error.text}"[:MOST_CHARACTERS]


class _BlockingPool:
    """A worker pool for callers without an event loop, or inside of another one: its loop has a thread of its own."""

    def __init__(self, task: Task, deadline: Deadline) -> None:
        self._pool = WorkerPool(task.recipe, deadline)
        self._loop = asyncio.new_event_loop()
        # Workers end when the thread that started them does, so this one must live until ``close``.
        self._thread = Thread(target=self._loop.run_forever, name="row screening", daemon=True)
        self._thread.start()

    def ask(self, verb: str, rows: Iterable[Row]) -> Iterator[tuple[Row, Answer]]:
        """An answer for each row, in order. Blocks of rows are asked concurrently."""
        waiting: deque[tuple[list[Row], Future[list[Answer]]]] = deque()
        left = iter(rows)
        try:
            while True:
                while len(waiting) <= self._pool.count and (block := list(islice(left, BLOCK))):
                    waiting.append((block, self._submit(self._pool.ask([Question(verb=verb, row=row) for row in block]))))
                if not waiting:
                    return
                block, answers = waiting.popleft()
                yield from zip(block, answers.result(), strict=True)
        finally:
            for _, answers in waiting:  # nobody wants to know any more
                answers.cancel()

    def close(self) -> None:
        self._submit(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        asked = asyncio.all_tasks() - {asyncio.current_task()}
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await self._pool.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)
