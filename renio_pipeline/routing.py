"""Several teachers as one stage: each scores the responses of the rows that name it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any

from renio_pipeline.pipeline import Teachers
from renio_pipeline.types import Rollout, ScoredRollout


class RoutedTeachers:
    """Pools side by side, each with a size and a queue of its own: a slow one keeps none of the others waiting."""

    def __init__(self, pools: Mapping[str, Teachers]) -> None:
        self.pools = dict(pools)

    @property
    def size(self) -> int:
        return sum(pool.size for pool in self.pools.values())

    @property
    def replicas(self) -> list[Any]:
        return [replica for pool in self.pools.values() for replica in pool.replicas]

    async def score(self, rollouts: AsyncIterator[Rollout]) -> list[ScoredRollout]:
        """Pass each rollout on as it comes; the list is in the order of sample ids."""
        queues: dict[str | None, asyncio.Queue[Rollout | None]] = {name: asyncio.Queue() for name in self.pools}
        async with asyncio.TaskGroup() as scoring:
            tasks = [scoring.create_task(pool.score(_drain(queues[name]))) for name, pool in self.pools.items()]
            async for rollout in rollouts:
                queues[rollout.prompt.row.teacher].put_nowait(rollout)
            for queue in queues.values():
                queue.put_nowait(None)
        scored = itertools.chain.from_iterable(task.result() for task in tasks)
        return sorted(scored, key=lambda s: s.rollout.sample_id)

    async def busy_seconds(self) -> list[float]:
        found = await asyncio.gather(*(pool.busy_seconds() for pool in self.pools.values()))
        return list(itertools.chain.from_iterable(found))


async def _drain(queue: asyncio.Queue[Rollout | None]) -> AsyncIterator[Rollout]:
    while (rollout := await queue.get()) is not None:
        yield rollout
