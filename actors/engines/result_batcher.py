"""Collects results in an actor so that one remote call returns all that finished at about the same time.

A streaming Ray generator costs its reader twice as much as a call, and one stream per sample would also cost a task per sample.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Generic, TypeVar

T = TypeVar("T")
LINGER_SECONDS = 0.002  # an engine step finishes several requests at once, but reports them one by one
SLACK = 0.01  # share of a request's duration by which its result may be delayed, to be sent with others
MOST_SLACK = 0.512  # seconds: the longest delay


class ResultBatcher(Generic[T]):
    """Usage: ``put`` results in the event loop's thread; ``await take()`` as often as wanted. One caller waits at a time."""

    def __init__(self) -> None:
        self._results: list[T] = []
        self._waiting: asyncio.Future[bool] | None = None
        self._due = math.inf  # when the results are sent, by ``time.time``
        self._timer: asyncio.TimerHandle | None = None  # fires then

    def put(self, item: T, took: float = 0.0, slack: float = SLACK) -> None:
        """Add a result.

        Args:
            took: seconds since it was requested.
            slack: share of ``took`` by which the result may be delayed.
        """
        self._results.append(item)
        now = time.time()
        due = send_time(now, took, slack)
        if due < self._due:
            self._set_timer(due, due - now)

    async def take(self) -> list[T]:
        """All results since the last call; waits for one. A later call makes an earlier one return an empty list."""
        self._wake(news=False)
        if not self._results or self._timer is not None:
            self._waiting = asyncio.get_running_loop().create_future()
            if not await self._waiting:
                return []
        self._stop_timer()
        results, self._results = self._results, []
        return results

    def _set_timer(self, due: float, seconds: float) -> None:
        self._stop_timer()
        self._due, self._timer = due, asyncio.get_running_loop().call_later(seconds, self._send)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = math.inf, None

    def _send(self) -> None:
        self._stop_timer()
        self._wake(news=True)

    def _wake(self, *, news: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(news)


def send_time(now: float, took: float, slack: float = SLACK) -> float:
    """When to send a result that arrived at ``now`` after ``took`` seconds: the roundest time within its slack, the latest of
    those.

    Times are rounded to powers of two on the wall clock, which all actors of a machine share. So results of many actors reach
    the driver together and wake it up once, and results of short requests are sent with those of long ones.
    """
    latest = now + max(LINGER_SECONDS, min(MOST_SLACK, slack * took))
    grid = LINGER_SECONDS
    while latest // (2 * grid) * (2 * grid) > now:
        grid *= 2
    return latest // grid * grid
