"""The counters and gauges of a run, as Prometheus collects them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from renio_pipeline.config import RunConfig
from renio_pipeline.metrics.registry import METRICS, SOURCE_METRICS, TOTALS, source_quantity
from renio_pipeline.metrics.sink import Sink
from renio_pipeline.monitoring.distributions import Distributions
from renio_pipeline.monitoring.names import COUNTED, idle_pool, is_gauge, prometheus_name
from renio_pipeline.monitoring.replicas import Replicas
from renio_pipeline.stages.outcomes import SkippedStep, StepResult
from renio_pipeline.types import NonFiniteError


class Figures(Sink):
    """Counters start at 0 with the process and never fall: steps that are trained again after a lost rank count again, and
    ``renio_replayed_*`` count them.

    The run's thread writes and other threads collect without a lock: every value that is read is replaced atomically.
    """

    def __init__(self, config: RunConfig, last_step: int = 0) -> None:
        """``last_step``: the step after which the run resumes; 0 for a new run."""
        self._run = config.name
        self._steps_wanted = config.steps
        self._gauges: dict[str, float] = {}
        self._teachers_idle: dict[str, float] = {}
        self._counted: Counter[str] = Counter()
        self._totals = dict.fromkeys(TOTALS, 0)
        self._steps = self._samples = self._step_samples = 0
        self._step = last_step
        self._failed = self._not_finite = False
        self._ended_at: float | None = None
        self._distributions, self._replicas = Distributions(config), Replicas()

    def observe(self, result: StepResult | SkippedStep) -> None:
        self._distributions.observe(result)
        self._replicas.observe(result)
        self._step_samples = len(result.scored) if isinstance(result, StepResult) else 0
        self._samples += self._step_samples
        if isinstance(result, StepResult):
            self._teachers_idle = result.teachers_idle

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name in COUNTED:
                self._counted[name] += value  # type: ignore[assignment]  # integers stay integers
            elif is_gauge(name) or idle_pool(name):
                self._gauges[name] = value  # shown only once it was measured: an unmeasured value is not 0
        self._distributions.write(metrics)
        self._steps, self._step, self._ended_at = self._steps + 1, step, time.time()

    def count(self, totals: Mapping[str, int]) -> None:
        self._totals = dict(totals)

    def end(self, error: Exception | None) -> None:
        """Record how the run ended."""
        self._failed, self._not_finite = error is not None, isinstance(error, NonFiniteError)

    def collect(self) -> Iterator[Metric]:
        yield self._counter("renio_steps", "steps done, including those that kept no sample", self._steps)
        yield self._counter("renio_samples_trained", "samples trained on", self._samples)
        for name in (n for n in COUNTED if n in METRICS):
            meaning = METRICS[name][1].replace(" in the step", "").replace(" of the step", "")
            yield self._counter(prometheus_name(name).removesuffix("_total"), meaning, self._counted[name])
        for name, total in self._totals.items():
            yield self._counter("renio_" + name.replace("/", "_"), TOTALS[name], total)
        yield self._gauge("renio_step", "the last completed step", self._step)
        yield self._gauge("renio_step_samples", "samples that the last step trained on", self._step_samples)
        yield self._gauge("renio_failed", "1: the run failed with an error", float(self._failed))
        yield self._gauge(
            "renio_not_finite",
            "1: the run failed because a loss, gradient or log-probability was not finite",
            float(self._not_finite),
        )
        yield self._gauge("renio_steps_wanted", "steps that the run is configured for", self._steps_wanted)
        if self._ended_at is not None:
            yield self._gauge("renio_step_timestamp_seconds", "when the last step ended, in Unix time", self._ended_at)
        gauges = dict(self._gauges)
        yield from (
            self._gauge(prometheus_name(n), METRICS[n][1], v) for n, v in gauges.items() if n in METRICS and is_gauge(n)
        )
        yield from self._of_sources(gauges)
        yield self._idle(gauges)
        yield from self._distributions.collect(self._run)
        yield from self._replicas.collect(self._run)

    def _idle(self, gauges: Mapping[str, float]) -> Metric:
        meaning = "share of the step in which a pool's replicas were idle, on average"
        family = GaugeMetricFamily("renio_idle_ratio", meaning, labels=["run", "pool"])
        shares = {pool: value for name, value in gauges.items() if (pool := idle_pool(name))}
        if of_each := self._teachers_idle:  # their mean would hide the teacher that the run waits for
            shares = {pool: share for pool, share in shares.items() if pool != "teacher"} | of_each
        for pool, share in shares.items():
            family.add_metric([self._run, pool], share)
        return family

    def _of_sources(self, gauges: Mapping[str, float]) -> Iterator[Metric]:
        """What ``data.sources`` are measured by, with the source as label."""
        families: dict[str, GaugeMetricFamily] = {}
        for name, value in gauges.items():
            if (found := source_quantity(name)) is None:
                continue
            source, quantity = found
            if quantity not in families:
                meaning = SOURCE_METRICS[quantity][1]
                families[quantity] = GaugeMetricFamily(prometheus_name(name), meaning, labels=["run", "source"])
            families[quantity].add_metric([self._run, source], value)
        yield from families.values()

    def _counter(self, name: str, meaning: str, value: float) -> Metric:
        family = CounterMetricFamily(name, meaning, labels=["run"])
        family.add_metric([self._run], value)
        return family

    def _gauge(self, name: str, meaning: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, meaning, labels=["run"])
        family.add_metric([self._run], value)
        return family
