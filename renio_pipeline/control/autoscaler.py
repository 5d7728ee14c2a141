"""Resizes pools with the load, during a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from renio_pipeline.config.schema import Autoscale
from renio_pipeline.control.autoscale_policy import Scaler
from renio_pipeline.loop.pause import Pause
from renio_pipeline.stages.elastic_pool import ElasticPool


async def follow_load(name: str, pool: ElasticPool, limits: Autoscale, pause: Pause, note: Callable[[str], None]) -> None:
    """Adapt a pool's size every ``interval_seconds``, until cancelled. A pool that is incomplete or paused is left alone."""
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
    """The idle share, 0 to 1, of the workers that existed throughout; None if there are none."""
    both = before.keys() & after.keys()
    if not both:
        return None
    return min(1.0, max(0.0, 1 - sum(after[w] - before[w] for w in both) / len(both) / seconds))
