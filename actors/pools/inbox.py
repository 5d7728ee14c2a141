"""Where a pool's results wait for whoever asked for them, to be taken in one go.

Asked for one by one, each of a step's thousands would cost a task and two futures, only to be given up if the pool fails.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Inbox:
    """Usage: ``put`` results; ``await take()``; ``close()`` at the end."""

    def __init__(self, failure: asyncio.Future[None]) -> None:
        """``failure``: fails with what must end the run, see ``actors.pools.supervisor.Workers``."""
        self._items: list[Any] = []
        self._failure = failure
        self._waiting: asyncio.Future[None] | None = None
        failure.add_done_callback(self._wake)

    def put(self, item: Any) -> None:
        """A result, or an exception, which the taker gets."""
        self._items.append(item)
        self._wake()

    async def take(self) -> list[Any]:
        """All that has come; waits for something. Raises what must end the run, or the first exception that was put."""
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
        self._failure.remove_done_callback(self._wake)

    def _wake(self, _: object = None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
