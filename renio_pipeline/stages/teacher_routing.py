"""Several teachers as one stage: each response is scored by the teacher that its row names."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence

from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.types import Busy, Continuation, ContinuationRequest, Rollout, ScoredRollout


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
            tasks = [scoring.create_task(pool.score(drain(queues[name]), step)) for name, pool in self.pools.items()]
            async for rollout in rollouts:
                queues[rollout.prompt.row.teacher].put_nowait(rollout)
            for queue in queues.values():
                queue.put_nowait(None)
        scored = itertools.chain.from_iterable(task.result() for task in tasks)
        return sorted(scored, key=lambda s: s.rollout.sample_id)

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        """Each request's teacher answers it. Raises ValueError for one that names none of them, before any is asked."""
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            if request.teacher not in self.pools:
                raise ValueError(f"a request names teacher {request.teacher!r}; there are {', '.join(self.pools)}")
            places.setdefault(request.teacher, []).append(place)
        try:
            async with asyncio.TaskGroup() as writing:
                tasks = {n: writing.create_task(self.pools[n].write([requests[i] for i in own])) for n, own in places.items()}
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # that of one pool, as if it had been asked alone
        found = {i: texts for n, own in places.items() for i, texts in zip(own, tasks[n].result(), strict=True)}
        return [found[i] for i in range(len(requests))]

    async def busy_seconds(self) -> Busy:
        found = await asyncio.gather(*(pool.busy_seconds() for pool in self.pools.values()))
        return {
            f"{name}/{worker}": seconds
            for name, busy in zip(self.pools, found, strict=True)
            for worker, seconds in busy.items()
        }


async def drain(queue: asyncio.Queue[Rollout | None]) -> AsyncIterator[Rollout]:
    while (rollout := await queue.get()) is not None:
        yield rollout
