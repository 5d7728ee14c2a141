"""The current state of the pools, also between two steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

LOOK_SECONDS = 0.5  # between two looks
Statuses = Mapping[str, Mapping[str, int]]  # by pool

GAUGES = {
    "serving": ("renio_pool_size", "replicas that are serving"),
    "target": ("renio_pool_target", "replicas wanted"),
    "starting": ("renio_pool_starting", "replicas that are loading their model"),
    "waiting": ("renio_pool_waiting", "replicas that are waiting for resources"),
    "away": ("renio_pool_away", "replicas of a served teacher none of whose servers answers"),
    "queue": ("renio_pool_queue", "samples waiting for a replica"),
    "in_flight": ("renio_pool_in_flight", "samples at a replica"),
}


class Live:
    """``look`` runs concurrently with the run, in its event loop; ``collect``, on any thread, returns what it saw last."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._seen: Statuses = {}
        self._paused, self._held_at = False, time.time()

    async def look(self, statuses: Callable[[], Statuses], paused: Callable[[], bool]) -> None:
        """Poll the pools forever. Only the loop's thread may read a pool: another thread could see it half changed."""
        while True:
            self._seen, self._paused = statuses(), paused()
            if self._paused:
                self._held_at = time.time()
            await asyncio.sleep(LOOK_SECONDS)

    def collect(self) -> Iterator[Metric]:
        seen = self._seen
        for key, (name, meaning) in GAUGES.items():
            gauge = GaugeMetricFamily(name, meaning, labels=["run", "pool"])
            for pool, status in seen.items():
                if key in status:
                    gauge.add_metric([self._run, pool], status[key])
            yield gauge
        restarts = CounterMetricFamily("renio_pool_restarts", "replicas that were replaced", labels=["run", "pool"])
        for pool, status in seen.items():
            restarts.add_metric([self._run, pool], status["restarts"])
        yield restarts
        for name, meaning, value in (
            ("renio_paused", "1: paused by the user", float(self._paused)),
            ("renio_held_timestamp_seconds", "when the run began or was last paused, in Unix time", self._held_at),
        ):
            gauge = GaugeMetricFamily(name, meaning, labels=["run"])
            gauge.add_metric([self._run], value)
            yield gauge
