"""A stop that comes while no progress is possible: a pool has no worker, and every one that it wants waits for resources."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from renio_pipeline.loop.shutdown import LOOK_SECONDS, Stop
from renio_pipeline.stages.elastic_pool import ElasticPool

T = TypeVar("T")
PATIENCE_SECONDS = 10.0  # without a worker; one that is replaced waits shortly for its place too


class Stranded(Exception):
    """The run is to stop, and what it awaits cannot come. The text says for which pool."""


async def unless_stranded(
    waiting: Coroutine[Any, Any, T], pools: Mapping[str, ElasticPool], stop: Stop, end_pause: Callable[[], Awaitable[None]]
) -> T:
    """Await what needs workers. A stop waits for it too, but neither for a node that may never join nor for a pause's end.

    Raises:
        Stranded: a stop was requested, and for ``PATIENCE_SECONDS`` after that a pool had no worker and no place for one.
    """
    task = asyncio.create_task(waiting)
    since: dict[str, float] = {}
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
            if stop.requested:
                await end_pause()
            now = time.monotonic()
            stranded = [name for name, pool in pools.items() if stop.requested and _without_a_place(pool.status())]
            since = {name: since.get(name, now) for name in stranded}
            for name, begun in since.items():
                if now - begun >= PATIENCE_SECONDS and not task.done():
                    raise Stranded(f"pool {name} has no worker, and waits for resources that the cluster does not have")
        return await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _without_a_place(status: Mapping[str, int]) -> bool:
    at_work = status["serving"] + status["starting"] + status["in_flight"]
    return not at_work and status["waiting"] >= status["target"] > 0
