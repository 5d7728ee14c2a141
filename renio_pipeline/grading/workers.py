"""The pool of worker processes that ask a task: few, replaced when they die or exceed a deadline, gone when their owner is.

A worker makes the task anew from its name and options, so that only rows and texts travel. Before its first question it answers
an untimed one, a trivial one: what a verifier imports on first use must not count against whichever row happens to come first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.mixture import Recipe, TaskMix
from renio_pipeline.config.own.own_file import OwnFile
from renio_pipeline.sandbox.deadline import LOOK_SECONDS, CutOff, Deadline, Watch
from renio_pipeline.types import Row

MOST_WORKERS = 4
TRIES = 2
START = Deadline(cpu_seconds=300.0, idle_seconds=300.0)  # imports, and a trivial first answer
_WARM_UP = ("warm up", Row(id="warm-up", problem="1 + 1", answer="2"), "2")
_MOST_REPLY = 64 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    verb: str  # a key of ``renio_pipeline.grading.questions.QUESTIONS``
    row: Row
    text: str = ""  # of a response


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """An exception that the task's code raised in a worker."""

    kind: str
    text: str
    traceback: str
    config: bool  # a ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    value: Any = None
    error: TaskError | None = None
    given_up: str | None = None  # why no answer came, in the last of the tries: "used more than 10 s of CPU time"


class WorkerPool:
    """At most ``count`` workers, which start as they are needed. Usage: ``await pool.ask(...)``, and ``close`` at the end."""

    def __init__(self, recipe: Recipe, deadline: Deadline, count: int | None = None) -> None:
        """``recipe``: the task's name and options. ``deadline``: for each answer."""
        self._recipe, self._deadline = recipe, deadline
        self.count = count or min(MOST_WORKERS, os.cpu_count() or 1)
        self._free = asyncio.Semaphore(self.count)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._warm_up = True
        self._closed = False

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions, of one worker.

        A question whose worker dies or exceeds the deadline is asked once more in a fresh worker, and then given up.

        Raises:
            ConfigError, RuntimeError: the task cannot be made in a worker.
        """
        answers: list[Answer] = []
        tries = 0
        async with self._free:
            while len(answers) < len(questions):
                worker = await self._take(fresh=tries > 0)
                try:
                    worker.send([(q.verb, q.row, q.text) for q in questions[len(answers) :]])
                    while len(answers) < len(questions):
                        answers.append(await worker.answer(self._deadline))
                        tries = 0
                except CutOff as error:
                    await self._drop(worker)
                    tries += 1
                    if tries == TRIES:
                        answers.append(Answer(given_up=str(error)))
                        tries = 0
                except BaseException:
                    await asyncio.shield(self._drop(worker))
                    raise
                else:
                    self._idle.append(worker)
        return answers

    async def close(self) -> None:
        """End every worker, whatever it does."""
        self._closed = True
        await asyncio.gather(*(worker.kill() for worker in self._all))
        self._all.clear()
        self._idle.clear()

    async def _take(self, *, fresh: bool) -> _Worker:
        if self._closed:
            raise RuntimeError("the grading workers are closed")
        if self._idle and fresh:
            await self._drop(self._idle.pop())
        if self._idle and not fresh:
            return self._idle.pop()
        try:
            return await self._start()
        except CutOff:  # a task that hangs on a made-up row may be fine with real ones
            self._warm_up = False
            return await self._start()

    async def _start(self) -> _Worker:
        """Raises CutOff for a warm-up that hangs."""
        worker = await _Worker.spawn()
        self._all.add(worker)
        try:
            await worker.make(*self._recipe)
            if self._warm_up:
                worker.send([_WARM_UP])
                await worker.answer(START)
        except BaseException:
            await asyncio.shield(self._drop(worker))
            raise
        return worker

    async def _drop(self, worker: _Worker) -> None:
        self._all.discard(worker)
        await worker.kill()


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout

    @classmethod
    async def spawn(cls) -> _Worker:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "renio_pipeline.grading.worker_main",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_MOST_REPLY,
                start_new_session=True,
            )
        )

    async def make(self, name: str | OwnFile | TaskMix, options: Mapping[str, Any]) -> None:
        """Raises ConfigError or RuntimeError: the task cannot be made there."""
        self.send([("make", name, dict(options))])
        try:
            made = await self.answer(START)
        except CutOff as error:
            shown = name if isinstance(name, str) else f"{name.path}:{name.cls}" if isinstance(name, OwnFile) else "of a source"
            raise RuntimeError(f"a grading worker for task {shown} {error} while it started; its own output says why") from None
        if made.error is not None:
            raise ConfigError(made.error.text) if made.error.config else RuntimeError(made.error.traceback)

    def send(self, message: list[tuple[Any, ...]]) -> None:
        """Returns at once; that the worker has died shows in its answer."""
        data = pickle.dumps(message)
        self._in.write(len(data).to_bytes(8, "big") + data)

    async def answer(self, deadline: Deadline) -> Answer:
        """The next one. Raises CutOff."""
        watch = Watch([self._process.pid], deadline)
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    line = await self._out.readline()  # cancelling it loses nothing of what has arrived
                reply = json.loads(line)
                break
            except TimeoutError:
                watch.look()
            except (ConnectionError, ValueError):
                raise CutOff("ended") from None
        return Answer(error=TaskError(**reply["error"])) if "error" in reply else Answer(value=reply["value"])

    async def kill(self) -> None:
        """End it, and the processes that the task started there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own; also where it ended by itself
        await self._process.wait()
        self._in.close()
