"""Pausing a run: the samples in flight are finished, nothing new begins, and every model stays loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from renio_pipeline.loop.shutdown import LOOK_SECONDS, Stop
from renio_pipeline.stages.elastic_pool import ElasticPool


class Pause:
    """Each step is trained within ``running()``, which waits while a pause is requested. A stop request ends the pause."""

    def __init__(self, pools: Iterable[ElasticPool], stop: Stop) -> None:
        self._pools, self._stop = list(pools), stop
        self._holds = AsyncExitStack()
        self._running = 0
        self.requested = False

    @property
    def complete(self) -> bool:
        """Whether a pause was requested and nothing is in flight any more."""
        return self.requested and not self._running and not any(pool.status()["in_flight"] for pool in self._pools)

    async def begin(self) -> None:
        """Let the current step end, hand out no more work, and return when no sample is in flight."""
        if not self.requested:
            self.requested = True
            while self._running and self.requested:  # the step may have to evaluate, which needs the pools
                await asyncio.sleep(LOOK_SECONDS)
            for pool in self._pools if self.requested else ():
                await self._holds.enter_async_context(pool.paused_dispatch(drain=False))
        while self.requested and not self.complete:
            await asyncio.sleep(LOOK_SECONDS)

    async def end(self) -> None:
        """Let the run continue."""
        self.requested = False
        await self._holds.aclose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Around what a pause must not leave half done. Waits until no pause is requested, or the run is to stop."""
        while self.requested and not self._stop.requested:
            await asyncio.sleep(LOOK_SECONDS)
        if self.requested:
            await self.end()
        with self.working():
            yield

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around what a pause waits for, but need not prevent: work that a step began and that ends by itself."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
