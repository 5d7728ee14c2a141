"""What has ended in an actor, until its caller comes for it: one plain call for all that ended together.

A stream of Ray's costs its reader twice what a call does, and one for every sample to be written costs a task each besides.
"""

from __future__ import annotations

import asyncio
import time
from typing import Generic, TypeVar

T = TypeVar("T")
LINGER_SECONDS = 0.002  # an engine's step ends several at once, but says so one by one
SLACK = 0.01  # of the time that something took: so much later its answer may come, to come together with others
MOST_SLACK = 0.064  # seconds


class Outbox(Generic[T]):
    """Usage: ``put`` in the loop's thread; ``await take()`` as often as wanted. One caller waits at a time."""

    def __init__(self) -> None:
        self._ended: list[T] = []
        self._waiting: asyncio.Future[bool] | None = None
        self._slack = LINGER_SECONDS

    def put(self, item: T, took: float = 0.0) -> None:
        """``took``: seconds since it was asked for."""
        self._ended.append(item)
        self._slack = tick(took)
        self._wake(news=True)

    async def take(self) -> list[T]:
        """All that has ended since the last time; waits for something. A later caller sends an earlier one home."""
        self._wake(news=False)
        if not self._ended:
            self._waiting = asyncio.get_running_loop().create_future()
            if await self._waiting:
                await asyncio.sleep(self._slack - time.time() % self._slack)
            else:
                return []
        ended, self._ended = self._ended, []
        return ended

    def _wake(self, *, news: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(news)


def tick(took: float) -> float:
    """Seconds between the moments at which answers leave: a power of two of them, so that longer ones are among shorter ones.

    By the wall clock, which all actors of a machine share: what 64 of them say at one moment wakes the driver up once.
    """
    seconds = LINGER_SECONDS
    while 2 * seconds <= min(MOST_SLACK, SLACK * took):
        seconds *= 2
    return seconds
