"""The run's scrape target."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from renio_pipeline.config import RunConfig
from renio_pipeline.metrics.sink import Sink
from renio_pipeline.monitoring.audience import Audience
from renio_pipeline.monitoring.discovery import check_discovery, discoverable
from renio_pipeline.monitoring.endpoint import Endpoint, text_page
from renio_pipeline.monitoring.engines import Engines
from renio_pipeline.monitoring.figures import Figures
from renio_pipeline.monitoring.info import Info
from renio_pipeline.monitoring.limits import Limits
from renio_pipeline.monitoring.live import Live, Statuses
from renio_pipeline.stages.outcomes import SkippedStep, StepResult

if TYPE_CHECKING:
    from renio_pipeline.loop.run import Run


class PrometheusSink(Sink):
    """Serves ``/metrics`` for the whole run and ``/engines`` with vLLM's own metrics, on ``metrics_port``.

    Raises:
        ConfigError: the port is in use, or ``metrics_discovery`` cannot be written to.
    """

    def __init__(self, config: RunConfig, host: str, last_step: int = 0) -> None:
        """
        Args:
            host: the address by which other nodes reach this node.
            last_step: the step after which the run resumes; 0 for a new run.
        """
        assert config.metrics_port is not None
        check_discovery(config.metrics_discovery)
        self._config = config
        self._figures, self._live, self._engines = Figures(config, last_step), Live(config.name), Engines(config.name)
        registry = CollectorRegistry()
        self._audience = Audience()
        registry.register(_All(self._figures, self._live, Limits(config), Info(config)))
        pages = {"/metrics": self._audience.page(make_wsgi_app(registry)), "/engines": text_page(self._engines.page)}
        self._endpoint = Endpoint(config.metrics_port, {"": pages["/metrics"], **pages})
        self.address = f"{host}:{self._endpoint.port}"

    async def serve(self, run: Run) -> None:
        """Advertise the endpoint and export the current state of the pools of ``run``, forever."""

        def statuses() -> Statuses:
            return {name: pool.status() for name, pool in run.stages.pools.items()} | run.fixed_pools()

        with discoverable(self._config, self.address):
            await asyncio.gather(self._live.look(statuses, lambda: run.pause.requested), self._engines.serve(run.stages.pools))

    def observe(self, result: StepResult | SkippedStep) -> None:
        self._figures.observe(result)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._figures.write(step, metrics)

    def count(self, totals: Mapping[str, int]) -> None:
        self._figures.count(totals)

    async def on_run_end(self, error: Exception | None) -> None:
        self._figures.end(error)
        await self._audience.served()

    def close(self) -> None:
        self._endpoint.close()


class _All(Collector):
    def __init__(self, *parts: Figures | Live | Limits | Info) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part.collect()
