"""Generators on the trainer ranks' GPUs, which sleep during the ranks' turn (see ``renio_pipeline.stages.turns``).

A generator that dies during the ranks' turn is replaced after it: an engine that loads takes its whole share of the GPU memory
and measures what is free. For the same reason the ranks wait for a generator that is already loading. They cannot wait forever,
because loading has a deadline, and the wait ends if a rank is lost.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Literal

from actors.errors import plain_reason
from actors.pools.base import Pool
from actors.pools.waiting import answer
from actors.pools.worker import Worker


class ColocatedGenerators:
    """Puts the generators of a pool to sleep for the ranks' turn, and wakes them up afterwards."""

    def __init__(self, pool: Pool, syncing: asyncio.Lock) -> None:
        """``syncing``: the lock that is held while weights are sent to any generator."""
        self._pool, self._workers, self._syncing = pool, pool.workers, syncing
        self._seconds = pool.config.faults.deadline_seconds
        self._awake = asyncio.Event()
        self._awake.set()
        self._holds: AsyncExitStack | None = None  # set while they sleep

    async def turn(self) -> None:
        """Wait until a generator may start."""
        while not self._awake.is_set():  # the state may change again before this task runs
            await self._awake.wait()

    async def sleep(self) -> None:
        """Finish the requests in flight, accept neither requests nor weights, and free the GPUs. No effect on sleeping ones."""
        self._awake.clear()
        await self._workers.until(lambda: all(w.state not in ("waiting", "starting") for w in self._workers.all))
        if self._holds is None:
            async with AsyncExitStack() as holds:
                await holds.enter_async_context(self._pool.paused_dispatch(drain=True))
                await holds.enter_async_context(self._syncing)
                self._holds = holds.pop_all()
        await self._tell("sleep")

    async def wake_up(self) -> None:
        """Reclaim the GPUs with the weights from before, and resume."""
        await self._tell("wake_up")
        if self._holds is not None:
            await self._holds.aclose()
        self._holds = None
        self._awake.set()

    async def _tell(self, verb: Literal["sleep", "wake_up"]) -> None:
        await asyncio.gather(*(self._tell_one(worker, verb) for worker in self._workers.receivers))

    async def _tell_one(self, worker: Worker, verb: Literal["sleep", "wake_up"]) -> None:
        try:
            await worker.during(answer(getattr(worker.actor, verb).remote(), self._seconds, verb))
        except Exception as error:  # any error: it must neither keep the ranks' memory nor stay half awake
            worker.lose(f"when it was told to {verb}: {plain_reason(error)}")
