"""The outcomes of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from renio_pipeline.grading.grader import Judged
from renio_pipeline.types import Busy, Publication, ScoredRollout, Times, TrainReport
from renio_pipeline.weightings.step import Weighed


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A step's samples, before training."""

    step: int
    judged: Mapping[int, Judged]  # every response, by sample id
    scored: list[ScoredRollout]  # the samples that were kept, in the order of sample ids
    began: float  # time.perf_counter
    seconds: dict[str, float]  # metric name -> seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedStep:
    """A step that kept no sample: nothing was trained, and the weights are unchanged."""

    step: int
    judged: Mapping[int, Judged]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A step that was trained and published."""

    step: int
    judged: Mapping[int, Judged]  # every response, by sample id
    scored: list[ScoredRollout]  # the samples that were kept, B
    staleness: int  # of the oldest sample, in versions
    student: list[np.ndarray]  # B arrays, [T] float32: log p_S that the weights were computed from
    weighed: Weighed
    report: TrainReport
    publication: Publication
    seconds: dict[str, float]  # metric name -> seconds
    ended: float = 0.0  # time.perf_counter
    idle: dict[str, float] = field(default_factory=dict)  # metric name -> share
    teachers_idle: dict[str, float] = field(default_factory=dict)  # of several teachers: pool -> share
    busy: dict[str, Busy] = field(default_factory=dict)  # by pool
    spans: dict[str, Times] = field(default_factory=dict)  # "weigh", "train" and "sync": when each began and ended
