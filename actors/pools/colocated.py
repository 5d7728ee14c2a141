"""Generators on the trainer ranks' GPUs: out of the way in the ranks' turn (see ``renio_pipeline.stages.turns``).

A generator that dies in the ranks' turn is replaced when that is over: an engine that loads takes its whole share of the
GPU's memory, and measures what others leave it, so it needs its turn more than one that works. For the same reason the ranks
wait for one that loads already. They cannot wait for ever: loading has a deadline, and who waits gives up with a lost rank.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Literal

from actors.pools.base import Pool
from actors.pools.waiting import answer
from actors.pools.worker import Worker


class ColocatedGenerators:
    """The generators, as the ranks see them."""

    def __init__(self, pool: Pool, syncing: asyncio.Lock) -> None:
        """``syncing``: held by whoever sends weights to a generator, newcomers among them."""
        self._pool, self._workers, self._syncing = pool, pool.workers, syncing
        self._seconds = pool.config.faults.deadline_seconds
        self._awake = asyncio.Event()
        self._awake.set()
        self._holds: AsyncExitStack | None = None  # while they sleep

    async def turn(self) -> None:
        """Wait until a generator may start."""
        while not self._awake.is_set():  # it may be over again before this task gets to run
            await self._awake.wait()

    async def sleep(self) -> None:
        """End what is in flight, take no more and no weights, and free the GPUs. Without effect on those that sleep."""
        self._awake.clear()
        await self._workers.until(lambda: all(w.state not in ("waiting", "starting") for w in self._workers.all))
        if self._holds is None:
            async with AsyncExitStack() as holds:
                await holds.enter_async_context(self._pool.paused_dispatch(drain=True))
                await holds.enter_async_context(self._syncing)
                self._holds = holds.pop_all()
        await self._tell("sleep")

    async def wake_up(self) -> None:
        """Take the GPUs again, with the weights from before, and go on."""
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
        except Exception as error:  # whatever it is: it must not keep the ranks' memory, or be half awake
            worker.lose(f"when it was told to {verb}: {error}")
