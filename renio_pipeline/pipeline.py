"""The step, and the run around it.

    prompts ──> generators ──> teachers ──> weighting ──> trainers
    (cursor)        ^     each response goes on as it ends    │
                    └──────── publish: version N+1 ───────────┘

Who waits for whom: a teacher never waits for the slowest response of the step; weighting waits for every score, because
its normaliser is over the global batch; the trainers wait for the weights; the next step waits for the sync. Stages are
protocols: the loop does not care whether they are Ray pools or fakes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.selection import Judged, Selection, exactly_once
from renio_pipeline.types import Prompt, Rollout, ScoredRollout, TrainBatch, TrainSample, Version
from renio_pipeline.weigher import Weighed


class NonFiniteError(RuntimeError):
    """A loss, a gradient or a log-probability is not finite. The text names the step and the samples."""


class Generators(Protocol):
    size: int

    def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        """Yield each response as it ends, every prompt's exactly once."""
        ...

    async def busy_seconds(self) -> list[float]: ...


class Teachers(Protocol):
    @property
    def size(self) -> int: ...

    @property
    def replicas(self) -> Sequence[Any]: ...

    async def score(self, rollouts: AsyncIterator[Rollout]) -> list[ScoredRollout]:
        """Score rollouts as they come; the list is in the order of sample ids."""
        ...

    async def busy_seconds(self) -> list[float]: ...


class Weighting(Protocol):
    async def weigh(self, student: list[np.ndarray], teacher: list[np.ndarray]) -> Weighed: ...

    async def running_mean(self) -> float | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """A step's training, summed over ranks."""

    loss: float
    divergence: float
    tokens: int
    padding: float
    mismatch_mean: float
    mismatch_max: float
    grad_norm: float
    lr: float
    busy_seconds: list[float]  # of each rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a weight sync did."""

    version: Version
    bytes: int
    publish_seconds: float
    receive_seconds: float
    seconds: float


class Trainers(Protocol):
    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]: ...

    async def train(self, batch: TrainBatch) -> TrainReport:
        """Forward and backward of the whole batch, then the optimizer's step and the ranks' ledgers."""
        ...

    async def publish(self, version: Version) -> Publication: ...

    async def save(self, folder: str) -> None: ...

    async def written(self) -> None: ...


@dataclass(kw_only=True)
class Stages:
    generators: Generators
    teachers: Teachers
    weighting: Weighting
    trainers: Trainers


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedStep:
    """A step whose filter kept nothing: nothing was trained on, and the weights are what they were."""

    step: int
    judged: Mapping[int, Judged]  # every response that was written, by sample id
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    step: int
    judged: Mapping[int, Judged]  # every response that was written, by sample id
    scored: list[ScoredRollout]  # those that were kept
    weighed: Weighed
    report: TrainReport
    publication: Publication
    seconds: dict[str, float]  # metric name -> seconds
    idle: dict[str, float] = field(default_factory=dict)  # metric name -> share


async def train_step(
    stages: Stages, config: RunConfig, selection: Selection, step: int, version: Version
) -> StepResult | SkippedStep:
    """One strictly on-policy step: write, score, weigh, train, publish."""
    clock = Clock()
    busy_before = await _busy(stages)
    clock.mark("start")

    def write(prompts: Sequence[Prompt]) -> AsyncIterator[Rollout]:
        return clock.first_and_last(stages.generators.generate(prompts, config.sampling.temperature))

    scored = await stages.teachers.score(selection.responses(write))
    clock.mark("scored")

    in_order(scored, selection.kept)
    on_policy(scored, version)
    if not scored:
        seconds = {"time/step": clock.seconds("start", "scored"), "time/generate": clock.seconds("start", "last")}
        return SkippedStep(step=step, judged=selection.judged, seconds=seconds)
    own = await _student_logprobs(stages, config, scored, step)
    numbers(step, scored, own)
    weighed = await stages.weighting.weigh(own, [s.scores.logprobs for s in scored])
    clock.mark("weighed")

    report = await stages.trainers.train(make_batch(step, scored, weighed.weights))
    clock.mark("trained")

    publication = await stages.trainers.publish(Version(version.incarnation, version.number + 1))
    clock.mark("published")

    idle = idle_shares(busy_before, await _busy(stages), report, publication, clock.seconds("start", "published"))
    return StepResult(
        step=step, judged=selection.judged, scored=scored, weighed=weighed, report=report, publication=publication,
        idle=idle, seconds=clock.stages(),
    )  # fmt: skip


def in_order(scored: Sequence[ScoredRollout], kept: Sequence[int]) -> None:
    """Every sample that was kept must have been scored, once, and stand in the order of sample ids."""
    came = [s.rollout.sample_id for s in scored]
    exactly_once(came, kept)
    assert came == sorted(came), f"samples came back as {came}, not in the order of their ids"


def on_policy(scored: Sequence[ScoredRollout], version: Version) -> None:
    """Every sample must have been written by the weights that are about to be trained."""
    stale = [s.rollout.sample_id for s in scored if s.rollout.version != version]
    assert not stale, f"samples {stale} were not written by version {version}"


def numbers(step: int, scored: Sequence[ScoredRollout], student: Sequence[np.ndarray]) -> None:
    """Raises NonFiniteError for a log-probability that is no number: it would pass for a token that is not pivotal."""
    bad = [
        s.rollout.sample_id
        for s, own in zip(scored, student, strict=True)
        if np.isnan(own).any() or np.isnan(s.rollout.logprobs).any() or np.isnan(s.scores.logprobs).any()
    ]
    if bad:
        raise NonFiniteError(f"step {step}: log-probabilities that are not numbers; samples {bad}")


def make_batch(step: int, scored: Sequence[ScoredRollout], weights: np.ndarray) -> TrainBatch:
    samples = tuple(
        TrainSample(
            sample_id=s.rollout.sample_id,
            prompt_ids=s.rollout.prompt.student_ids,
            response_ids=s.rollout.token_ids,
            student_logprobs=s.rollout.logprobs,
            teacher_logprobs=s.scores.logprobs,
            weight=float(weight),
            payload=s.scores.payload,
        )
        for s, weight in zip(scored, weights, strict=True)
    )
    return TrainBatch(step=step, samples=samples)


async def _student_logprobs(stages: Stages, config: RunConfig, scored: Sequence[ScoredRollout], step: int) -> list[np.ndarray]:
    """log p_S for the weights: the generator's own, or one more forward pass by the trainers."""
    if config.student_logprobs == "generator":
        return [s.rollout.logprobs for s in scored]
    by_id = await stages.trainers.logprobs(make_batch(step, scored, np.ones(len(scored))))
    return [by_id[s.rollout.sample_id] for s in scored]


class Clock:
    """Wall-clock marks of a step."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def mark(self, name: str) -> None:
        self._at[name] = time.perf_counter()

    def seconds(self, start: str, end: str) -> float:
        return self._at[end] - self._at[start]

    async def first_and_last(self, responses: AsyncIterator[Rollout]) -> AsyncIterator[Rollout]:
        """Pass responses on, and mark when the first and the last came."""
        async for response in responses:
            if "first" not in self._at:
                self.mark("first")
            self.mark("last")
            yield response

    def stages(self) -> dict[str, float]:
        return {
            "time/step": self.seconds("start", "published"),
            "time/generate": self.seconds("start", "last"),
            "time/score": self.seconds("first", "scored"),
            "time/weigh": self.seconds("scored", "weighed"),
            "time/train": self.seconds("weighed", "trained"),
            "time/sync": self.seconds("trained", "published"),
        }


Busy = dict[str, list[float]]


async def _busy(stages: Stages) -> Busy:
    return {"generator": await stages.generators.busy_seconds(), "teacher": await stages.teachers.busy_seconds()}


def idle_shares(before: Busy, after: Busy, report: TrainReport, publication: Publication, seconds: float) -> dict[str, float]:
    """Share of the step in which each pool's replicas did nothing, on average."""
    worked: dict[str, Any] = {
        pool: np.mean(np.subtract(after[pool], before[pool])) if len(after[pool]) == len(before[pool]) else 0.0
        for pool in after
    }
    worked["trainer"] = np.mean(report.busy_seconds) + publication.seconds
    return {f"idle/{pool}": float(np.clip(1 - busy / seconds, 0, 1)) for pool, busy in worked.items()}
