"""Worker processes that grade: few, replaced when they die or take too long, and gone when their owner is.

A worker makes the task anew from its name and options, so that all that goes to it is a row and a text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from renio_pipeline.types import Row, Verdict

_START_SECONDS = 300.0  # imports, on a machine that is busy
_MOST_REPLY = 64 << 20  # bytes
_TRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    verdict: Verdict | None
    answer: str | None
    given_up: bool = False


class _Died(Exception):
    pass


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, name: str, options: Mapping[str, Any]) -> _Worker:
        """Raises RuntimeError: the task cannot be made there."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "renio_pipeline.grading.worker_main",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MOST_REPLY,
            start_new_session=True,
        )
        worker = cls(process)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await worker.ask((name, dict(options)))
        except (_Died, TimeoutError) as error:
            await worker.kill()
            raise RuntimeError(f"a grader for task {name} ended, or hung, while it started; its own output says why") from error
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def ask(self, message: tuple[Any, ...]) -> dict[str, Any]:
        """Raises _Died; RuntimeError for an exception of the task."""
        try:
            data = pickle.dumps(message)
            self._in.write(len(data).to_bytes(8, "big") + data)
            await self._in.drain()
            reply: dict[str, Any] = json.loads(await self._out.readline())
        except (ConnectionError, ValueError) as error:
            raise _Died from error
        if "error" in reply:
            raise RuntimeError(f"the task raised while it graded:\n{reply['error']}")
        return reply

    async def kill(self) -> None:
        """End it, and the processes that the task started there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own; also where it ended by itself
        await self._process.wait()
        self._in.close()


class Graders:
    """At most ``count`` workers, which start as they are needed."""

    def __init__(self, name: str, options: Mapping[str, Any], *, seconds: float, count: int) -> None:
        self._name, self._options, self._seconds = name, options, seconds
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False

    async def grade(self, row: Row, text: str) -> Graded:
        """The verdict, at the latest ``seconds`` after a worker took the response up. A worker that dies costs it a second try.

        Raises:
            RuntimeError: the task raised, or cannot be made in a worker.
        """
        async with self._free:
            for _ in range(_TRIES):
                worker = await self._take()
                try:
                    async with asyncio.timeout(self._seconds):
                        reply = await worker.ask((row, text))
                except TimeoutError:
                    await self._drop(worker)
                    break
                except _Died:
                    await self._drop(worker)
                    continue
                except RuntimeError:
                    self._idle.append(worker)
                    raise
                except BaseException:
                    await asyncio.shield(self._drop(worker))
                    raise
                self._idle.append(worker)
                return Graded(**reply)
        return Graded(verdict="incorrect", answer=None, given_up=True)

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(worker.kill() for worker in self._all))
        self._all.clear()
        self._idle.clear()

    async def _take(self) -> _Worker:
        if self._closed:
            raise RuntimeError("the graders are closed")
        if self._idle:
            return self._idle.pop()
        worker = await _Worker.start(self._name, self._options)
        self._all.add(worker)
        return worker

    async def _drop(self, worker: _Worker) -> None:
        self._all.discard(worker)
        await worker.kill()
