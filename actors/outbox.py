"""What has ended in an actor, until its caller comes for it: one plain call for all that ended together.

A stream of Ray's costs its reader twice what a call does, and one for every sample to be written costs a task each besides.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")
LINGER_SECONDS = 0.002  # an engine's step ends several at once, but says so one by one


class Outbox(Generic[T]):
    """Usage: ``put`` in the loop's thread; ``await take()`` as often as wanted. One caller waits at a time."""

    def __init__(self) -> None:
        self._ended: list[T] = []
        self._waiting: asyncio.Future[bool] | None = None

    def put(self, *items: T) -> None:
        self._ended += items
        self._wake(news=True)

    async def take(self) -> list[T]:
        """All that has ended since the last time; waits for something. A later caller sends an earlier one home."""
        self._wake(news=False)
        if not self._ended:
            self._waiting = asyncio.get_running_loop().create_future()
            if await self._waiting:
                await asyncio.sleep(LINGER_SECONDS)
            else:
                return []
        ended, self._ended = self._ended, []
        return ended

    def _wake(self, *, news: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(news)
