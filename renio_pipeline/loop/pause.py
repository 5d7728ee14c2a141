"""Pausing a run: what is in flight ends, nothing new begins, every model stays loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from renio_pipeline.loop.shutdown import Stop
from renio_pipeline.stages.elastic_pool import ElasticPool

LOOK_SECONDS = 0.05


class Gate:
    """Each step is trained in a ``passage``; a closed gate lets none begin. A run that is asked to stop opens it."""

    def __init__(self, pools: Iterable[ElasticPool], stop: Stop) -> None:
        self._pools, self._stop = list(pools), stop
        self._holds = AsyncExitStack()
        self._under_way = 0
        self.closed = False

    @property
    def paused(self) -> bool:
        """Whether nothing is under way any more."""
        return self.closed and not self._under_way and not any(pool.status()["in_flight"] for pool in self._pools)

    async def close(self) -> None:
        """Let the step under way end, hand out no more work, and return when no sample is in flight."""
        if not self.closed:
            self.closed = True
            while self._under_way and self.closed:  # it may have to evaluate, which needs the pools
                await asyncio.sleep(LOOK_SECONDS)
            for pool in self._pools if self.closed else ():
                await self._holds.enter_async_context(pool.paused_dispatch(drain=False))
        while self.closed and not self.paused:
            await asyncio.sleep(LOOK_SECONDS)

    async def open(self) -> None:
        self.closed = False
        await self._holds.aclose()

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Around what must not be left half done."""
        while self.closed and not self._stop.requested:
            await asyncio.sleep(LOOK_SECONDS)
        if self.closed:
            await self.open()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
