"""Histograms of a run's times, response lengths, weights and log-ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from renio_pipeline.config import RunConfig
from renio_pipeline.grading.grader import by_student
from renio_pipeline.monitoring.histogram import Histogram, doubling
from renio_pipeline.monitoring.names import STAGES, stage_of
from renio_pipeline.stages.outcomes import SkippedStep, StepResult

SECONDS = doubling(0.015625, 4096)  # a stage takes tenths of a second in the demo, and up to an hour with a large model
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 25.0)
LOG_RATIOS = (-10.0, -5.0, -2.5, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0)


class Distributions:
    """Filled by one thread; any other thread may collect at the same time."""

    def __init__(self, config: RunConfig) -> None:
        pivotal = (config.pivotal.threshold, config.pivotal.clip)  # bucket ends: the share above each can be read off
        self._stages = {stage: Histogram(SECONDS) for stage in STAGES}
        self._step, self._weights = Histogram(SECONDS), Histogram(WEIGHTS)
        self._lengths, self._ratios = Histogram(doubling(1, config.max_response_tokens)), Histogram((*LOG_RATIOS, *pivotal))

    def observe(self, result: StepResult | SkippedStep) -> None:
        self._lengths.observe([len(j.rollout.token_ids) for j in by_student(result.judged.values())])
        if isinstance(result, StepResult) and result.weighed is not None:
            self._weights.observe(result.weighed.weights)
            pairs = zip(result.student, result.scored, strict=True)
            own = [each - s.teacher_logprobs for each, s in pairs if s.rollout.by_a_student]
            self._ratios.observe(np.concatenate([np.empty(0, np.float32), *own]))

    def write(self, metrics: Mapping[str, float]) -> None:
        self._step.observe([metrics["time/step"]])
        for name, value in metrics.items():
            if stage := stage_of(name):
                self._stages[stage].observe([value])

    def collect(self, run: str) -> Iterator[Metric]:
        stages = HistogramMetricFamily(
            "renio_stage_seconds", "wall time of a step's stages, which overlap", labels=["run", "stage"]
        )
        for stage, times in self._stages.items():
            if times:
                stages.add_metric([run, stage], *times.read())
        yield stages
        for name, meaning, histogram in (
            ("renio_time_step_seconds", "wall time of a step", self._step),
            ("renio_response_length_tokens", "length of each response", self._lengths),
            ("renio_sample_weight", "weight of each sample trained on", self._weights),
            ("renio_log_ratio_nats", "student-to-teacher log-ratio of each token; no sum: some are negative", self._ratios),
        ):  # fmt: skip
            family = HistogramMetricFamily(name, meaning, labels=["run"])
            family.add_metric([run], *histogram.read())
            yield family
