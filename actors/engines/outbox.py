"""What has ended in an actor, until its caller comes for it: one plain call for all that ended together.

A stream of Ray's costs its reader twice what a call does, and one for every sample to be written costs a task each besides.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Generic, TypeVar

T = TypeVar("T")
LINGER_SECONDS = 0.002  # an engine's step ends several at once, but says so one by one
SLACK = 0.01  # of the time that something took: so much later its answer may come, to come with others
MOST_SLACK = 0.512  # seconds


class Outbox(Generic[T]):
    """Usage: ``put`` in the loop's thread; ``await take()`` as often as wanted. One caller waits at a time."""

    def __init__(self) -> None:
        self._ended: list[T] = []
        self._waiting: asyncio.Future[bool] | None = None
        self._leaves = math.inf  # the first of the moments at which they leave, by ``time.time``
        self._timer: asyncio.TimerHandle | None = None  # for that

    def put(self, item: T, took: float = 0.0, slack: float = SLACK) -> None:
        """``took``: seconds since it was asked for. ``slack``: share of them by which its answer may be late."""
        self._ended.append(item)
        now = time.time()
        leaves = moment(now, took, slack)
        if leaves < self._leaves:
            self._set_timer(leaves, leaves - now)

    async def take(self) -> list[T]:
        """All that has ended since the last time; waits for something. A later caller sends an earlier one home."""
        self._wake(news=False)
        if not self._ended or self._timer is not None:
            self._waiting = asyncio.get_running_loop().create_future()
            if not await self._waiting:
                return []
        self._stop_timer()
        ended, self._ended = self._ended, []
        return ended

    def _set_timer(self, leaves: float, seconds: float) -> None:
        self._stop_timer()
        self._leaves, self._timer = leaves, asyncio.get_running_loop().call_later(seconds, self._leave)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._leaves, self._timer = math.inf, None

    def _leave(self) -> None:
        self._stop_timer()
        self._wake(news=True)

    def _wake(self, *, news: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(news)


def moment(now: float, took: float, slack: float = SLACK) -> float:
    """When an answer leaves that came ``now`` and took so long: the roundest moment within its slack, and the last of those.

    By the wall clock, which all actors of a machine share, in powers of two: what many of them say at one moment wakes the
    driver up once, and short answers leave with long ones.
    """
    latest = now + max(LINGER_SECONDS, min(MOST_SLACK, slack * took))
    grid = LINGER_SECONDS
    while latest // (2 * grid) * (2 * grid) > now:
        grid *= 2
    return latest // grid * grid
