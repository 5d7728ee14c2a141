"""Several teachers as one stage: each response is scored by the teacher that its row names."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping

from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.types import Busy, Rollout, ScoredRollout


class RoutedTeachers:
    """Independent pools, each with its own size and queue, so that a slow one does not delay the others."""

    def __init__(self, pools: Mapping[str, Teachers]) -> None:
        self.pools = dict(pools)

    @property
    def size(self) -> int:
        return sum(pool.size for pool in self.pools.values())

    def dispatch(self) -> None:
        for pool in self.pools.values():
            pool.dispatch()

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Route each rollout as it arrives. Returns all of them in the order of sample ids."""
        queues: dict[str | None, asyncio.Queue[Rollout | None]] = {name: asyncio.Queue() for name in self.pools}
        async with asyncio.TaskGroup() as scoring:
            tasks = [scoring.create_task(pool.score(_drain(queues[name]), step)) for name, pool in self.pools.items()]
            async for rollout in rollouts:
                queues[rollout.prompt.row.teacher].put_nowait(rollout)
            for queue in queues.values():
                queue.put_nowait(None)
        scored = itertools.chain.from_iterable(task.result() for task in tasks)
        return sorted(scored, key=lambda s: s.rollout.sample_id)

    async def busy_seconds(self) -> Busy:
        found = await asyncio.gather(*(pool.busy_seconds() for pool in self.pools.values()))
        return {
            f"{name}/{worker}": seconds
            for name, busy in zip(self.pools, found, strict=True)
            for worker, seconds in busy.items()
        }


async def _drain(queue: asyncio.Queue[Rollout | None]) -> AsyncIterator[Rollout]:
    while (rollout := await queue.get()) is not None:
        yield rollout
