"""What comes of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from renio_pipeline.grading.grader import Judged
from renio_pipeline.types import Busy, Publication, ScoredRollout, Times, TrainReport
from renio_pipeline.weightings.step import Weighed


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a step will be trained on, and what it took to get it."""

    step: int
    judged: Mapping[int, Judged]  # every response that was written, by sample id
    scored: list[ScoredRollout]  # those that were kept, in the order of sample ids
    began: float  # when, on the monotonic clock
    seconds: dict[str, float]  # metric name -> seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedStep:
    """A step that kept nothing: nothing was trained on, and the weights are what they were."""

    step: int
    judged: Mapping[int, Judged]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    step: int
    judged: Mapping[int, Judged]  # every response that was written, by sample id
    scored: list[ScoredRollout]  # those that were kept
    staleness: int  # of the oldest sample, in versions
    student: list[np.ndarray]  # of each of them, [T] log p_S that it was weighed by
    weighed: Weighed
    report: TrainReport
    publication: Publication
    seconds: dict[str, float]  # metric name -> seconds
    ended: float = 0.0  # when, on the monotonic clock
    idle: dict[str, float] = field(default_factory=dict)  # metric name -> share
    teachers_idle: dict[str, float] = field(default_factory=dict)  # of several teachers: pool -> share
    busy: dict[str, Busy] = field(default_factory=dict)  # by pool
    spans: dict[str, Times] = field(default_factory=dict)  # "weigh", "train" and "sync": when each began and ended
