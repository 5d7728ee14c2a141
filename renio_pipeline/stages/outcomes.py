"""The outcomes of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from renio_pipeline.grading.grader import Judged
from renio_pipeline.rewards import Rewarded
from renio_pipeline.types import Busy, Publication, ScoredRollout, Times, TrainReport
from renio_pipeline.weightings.step import Weighed


def over_passes(reports: Sequence[TrainReport]) -> TrainReport:
    """The report of several optimizer steps on one batch: their means, and their busy seconds together.

    How far the generator's log-probabilities are from the trainer's is the first pass's: after it the weights are others. So is
    the learning rate.
    """
    first = reports[0]
    if len(reports) == 1:
        return first
    return replace(
        first,
        loss=float(np.mean([r.loss for r in reports])),
        divergence=float(np.mean([r.divergence for r in reports])),
        grad_norm=float(np.mean([r.grad_norm for r in reports])),
        measured={name: float(np.mean([r.measured[name] for r in reports])) for name in first.measured},
        busy_seconds=[sum(of_rank) for of_rank in zip(*(r.busy_seconds for r in reports), strict=True)],
    )


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
    weighed: Weighed | None  # None: nothing is distilled
    rewarded: Rewarded | None = None  # None: the run does not learn from rewards
    report: TrainReport
    publication: Publication
    seconds: dict[str, float]  # metric name -> seconds
    ended: float = 0.0  # time.perf_counter
    idle: dict[str, float] = field(default_factory=dict)  # metric name -> share
    teachers_idle: dict[str, float] = field(default_factory=dict)  # of several teachers: pool -> share
    busy: dict[str, Busy] = field(default_factory=dict)  # by pool
    spans: dict[str, Times] = field(default_factory=dict)  # "weigh", "train" and "sync": when each began and ended
