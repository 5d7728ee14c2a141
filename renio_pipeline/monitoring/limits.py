"""The limits that alerts compare a run's figures with: its configured bounds, and the space on its disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from renio_pipeline.config import RunConfig


class Limits:
    def __init__(self, config: RunConfig) -> None:
        self._config = config

    def collect(self) -> Iterator[Metric]:
        config = self._config
        yield self._gauge(
            "renio_staleness_bound", "max_staleness: how many weight versions old a sample may be", config.max_staleness
        )
        if config.distils:
            yield self._gauge(
                "renio_pivotal_threshold_nats",
                "log-ratio from which a token counts as pivotal",
                config.pivotal.threshold,
            )
        try:
            disk = shutil.disk_usage(config.directory)
        except OSError:  # not created yet, or its volume is gone: no figure is better than another disk's
            return
        yield self._gauge("renio_disk_size_bytes", "size of the file system that holds the run's directory", disk.total)
        yield self._gauge("renio_disk_free_bytes", "free on that file system for this user", disk.free)

    def _gauge(self, name: str, meaning: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, meaning, labels=["run"])
        family.add_metric([self._config.name], value)
        return family
