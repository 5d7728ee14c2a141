"""Queues a pool's results until the caller takes all of them at once.

Awaiting each of a step's thousands of results on its own would cost a task and two futures per result.
"""

from __future__ import annotations

import asyncio
from typing import Any


class ResultQueue:
    """Usage: ``put`` results; ``await take()``; ``close()`` at the end."""

    def __init__(self, failure: asyncio.Future[None]) -> None:
        """``failure`` fails with the error that ends the run: see ``actors.pools.supervisor.Workers``."""
        self._items: list[Any] = []
        self._failure = failure
        self._waiting: asyncio.Future[None] | None = None
        failure.add_done_callback(self._wake)

    def put(self, item: Any) -> None:
        """Add a result, or an exception, which ``take`` raises."""
        self._items.append(item)
        self._wake()

    async def take(self) -> list[Any]:
        """All results since the last call; waits for one. Raises the error that ends the run, or the first exception put."""
        while not self._items and not self._failure.done():
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if self._failure.done():
            self._failure.result()
        items, self._items = self._items, []
        for item in items:
            if isinstance(item, Exception):
                raise item
        return items

    def close(self) -> None:
        """Stop listening for the failure."""
        self._failure.remove_done_callback(self._wake)

    def _wake(self, _: object = None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
