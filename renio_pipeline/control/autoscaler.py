"""Lets the pools that may change their size follow the load, while a run goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from renio_pipeline.config.schema import Autoscale
from renio_pipeline.control.autoscale_policy import Scaler
from renio_pipeline.loop.pause import Pause
from renio_pipeline.stages.elastic_pool import ElasticPool


async def follow_load(name: str, pool: ElasticPool, limits: Autoscale, pause: Pause, note: Callable[[str], None]) -> None:
    """Look at a pool every ``interval_seconds``, for ever. A pool that is incomplete, or paused, is not looked at."""
    scaler = Scaler(limits)
    busy, at = await pool.busy_seconds(), time.monotonic()
    while True:
        await asyncio.sleep(limits.interval_seconds)
        now_busy, now = await pool.busy_seconds(), time.monotonic()
        idle = _idle(busy, now_busy, now - at)
        busy, at = now_busy, now
        status = pool.status()
        if pause.requested or idle is None or status["serving"] != status["target"]:
            continue
        wanted = scaler.look(status["target"], idle=idle, queue=status["queue"])
        if wanted != status["target"]:
            note(f"pool {name}: {status['target']} -> {wanted} replicas: idle for {idle:.0%}, {status['queue']} samples wait")
            pool.resize(wanted)


def _idle(before: dict[str, float], after: dict[str, float], seconds: float) -> float | None:
    """The share of the time in which the workers that were there all of it did nothing; None without such."""
    both = before.keys() & after.keys()
    if not both:
        return None
    return min(1.0, max(0.0, 1 - sum(after[w] - before[w] for w in both) / len(both) / seconds))
