"""Waiting for something no longer than what it depends on lives: the guarded wait, the deadline and the heartbeat."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
PATIENCE_SECONDS = 10.0  # after which a wait for resources is reported
PING_SECONDS = 5.0  # between two pings; a death at work is noticed at once, by the call that it has


class WorkerLost(RuntimeError):
    """A worker died, or said nothing for too long. The text says which."""


def new_failure() -> asyncio.Future[None]:
    """A future that is only ever made to fail, and may be awaited by any number of waits, or none."""
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failure.add_done_callback(lambda f: f.cancelled() or f.exception())  # never "never retrieved"
    return failure


async def guarded(waiting: Awaitable[T], failure: asyncio.Future[None]) -> T:
    """Await ``waiting``, but as soon as ``failure`` fails cancel it and raise that instead."""
    task: asyncio.Future[Any] = asyncio.ensure_future(waiting)
    either: set[asyncio.Future[Any]] = {task, failure}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            failure.result()  # raises
        found: T = await task
        return found
    finally:
        task.cancel()
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # nobody wants its result, nor its error, any more


async def answer(ref: Any, seconds: float, what: str) -> Any:
    """A remote call's result. Raises WorkerLost if it does not come in time."""
    try:
        async with asyncio.timeout(seconds):  # wait_for swallows a cancellation that comes with the answer: beats would go on
            return await ref
    except TimeoutError:
        raise WorkerLost(f"no answer to {what} in {seconds:g} s") from None


async def heartbeat(
    ping: Callable[[], Awaitable[Any]], seconds: float, heard: Callable[[], float] = lambda: -math.inf
) -> NoReturn:
    """Ping until an answer does not come within ``seconds``.

    Args:
        heard: when an answer to anything else last came, on ``time.monotonic``. Whoever answers to its work needs no ping: with
            a hundred replicas these would be a tenth of the driver's calls.

    Raises:
        WorkerLost: no answer in time; and whatever ``ping`` raises.
    """
    while True:
        await answer(ping(), seconds, "a ping")
        answered, pause = time.monotonic(), min(PING_SECONDS, seconds / 3)
        while (left := max(answered, heard()) + pause - time.monotonic()) > 0:
            await asyncio.sleep(left)
