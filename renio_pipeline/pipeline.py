"""The step, and the stages that it asks.

    prompts ──> generators ──> teachers ──> weighting ──> trainers
    (cursor)        ^     each response goes on as it ends    │
                    └──────── publish: version N+1 ───────────┘

Who waits for whom: a teacher never waits for the slowest response of the step; weighting waits for every score, because
its normaliser is over the global batch; the trainers wait for the weights. With ``max_staleness`` 0 the next step waits for the
sync; with k its responses may be written and scored by weights that are up to k versions older, while the trainers work (see
``renio_pipeline.ahead``). Stages are protocols: the loop does not care whether they are Ray pools or fakes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from renio_pipeline.budget import PayloadBudget
from renio_pipeline.config import RunConfig
from renio_pipeline.elastic import ElasticPool
from renio_pipeline.grading import Judged
from renio_pipeline.selection import Selection, exactly_once
from renio_pipeline.turns import Apart, Turns
from renio_pipeline.types import Prompt, Rollout, ScoredRollout, TrainBatch, TrainSample, Version
from renio_pipeline.weigher import Weighed

if TYPE_CHECKING:
    from renio_pipeline.resume import ResumePoint


class NonFiniteError(RuntimeError):
    """A loss, a gradient or a log-probability is not finite. The text names the step and the samples."""


class TrainerLost(RuntimeError):
    """A trainer rank died or fell silent: the step under way is void, and training begins again from a checkpoint."""


T = TypeVar("T")
Busy = dict[str, float]  # seconds of work so far, by worker


class Generators(Protocol):
    @property
    def size(self) -> int: ...

    def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        """Yield each response as it ends, every prompt's exactly once."""
        ...

    async def busy_seconds(self) -> Busy: ...


class Teachers(Protocol):
    @property
    def size(self) -> int: ...

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Score rollouts as they come; the list is in the order of sample ids."""
        ...

    def pump(self) -> None:
        """The payload budget may have room again."""
        ...

    async def busy_seconds(self) -> Busy: ...


class Weighting(Protocol):
    async def weigh(self, student: list[np.ndarray], teacher: list[np.ndarray]) -> Weighed: ...

    async def running_mean(self) -> float | None: ...

    async def restore(self, running_mean: float | None) -> None:
        """Go back to an earlier state of the normaliser."""
        ...

    def status(self) -> dict[str, int]:
        """``target``, ``serving``, ``restarts``."""
        ...


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
    shares: list[list[int]] = field(default_factory=list)  # the sample ids of each rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a weight sync did."""

    version: Version
    bytes: int
    publish_seconds: float
    receive_seconds: float
    seconds: float  # of the sync itself
    waited_seconds: float = 0.0  # before it, for the responses under way


class Trainers(Protocol):
    """Every verb but ``begin`` raises TrainerLost where a rank is gone."""

    @property
    def size(self) -> int: ...

    @property
    def restarts(self) -> int: ...

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]: ...

    async def train(self, batch: TrainBatch) -> TrainReport:
        """Forward and backward of the whole batch, then the optimizer's step and the ranks' ledgers."""
        ...

    async def publish(self, version: Version) -> Publication: ...

    async def save(self, folder: str) -> None: ...

    async def written(self) -> None: ...

    async def while_well(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Await something else, no longer than every rank is well."""
        ...

    async def begin(self, point: ResumePoint) -> None:
        """Start the ranks anew, from a checkpoint."""
        ...


@dataclass(kw_only=True)
class Stages:
    generators: Generators
    teachers: Teachers
    weighting: Weighting
    trainers: Trainers
    turns: Turns = field(default_factory=Apart)
    payload: PayloadBudget = field(default_factory=lambda: PayloadBudget(2**62, 1, 0))
    rejected: set[int] = field(default_factory=set)  # samples that were set aside
    pools: dict[str, ElasticPool] = field(default_factory=dict)  # by name, of which the size may change


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a step will be trained on, and what it took to get it."""

    step: int
    judged: Mapping[int, Judged]  # every response that was written, by sample id
    scored: list[ScoredRollout]  # those that were kept, in the order of sample ids
    began: float  # when, on the monotonic clock
    seconds: dict[str, float]  # metric name -> seconds
    marks: dict[str, float] = field(default_factory=dict)  # of the clock


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
    marks: dict[str, float] = field(default_factory=dict)  # of the clock


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a step begins: the moment that the one before it ended."""

    at: float
    busy: dict[str, Busy]  # by pool

    @classmethod
    async def now(cls, stages: Stages) -> Mark:
        generators, teachers = await asyncio.gather(stages.generators.busy_seconds(), stages.teachers.busy_seconds())
        return cls(time.perf_counter(), {"generator": generators, "teacher": teachers})


async def train_step(
    stages: Stages, config: RunConfig, selection: Selection, step: int, version: Version
) -> StepResult | SkippedStep:
    """One step after another: write, score, weigh, train, publish."""
    since = await Mark.now(stages)
    return await learn(stages, config, await collect(stages, config, selection, step), version, since)


async def collect(stages: Stages, config: RunConfig, selection: Selection, step: int) -> Collected:
    """Write and score a step's samples. Several steps may be under way at a time."""
    clock = Clock()
    clock.mark("start")
    stages.payload.open(step)

    def write(prompts: Sequence[Prompt]) -> AsyncIterator[Rollout]:
        return clock.first_and_last(stages.generators.generate(prompts, config.sampling.temperature))

    scored = await stages.teachers.score(selection.responses(write), step)
    clock.mark("scored")
    in_order(scored, [i for i in selection.kept if i not in stages.rejected])
    return Collected(
        step=step, judged=selection.judged, scored=scored, began=clock.at("start"), seconds=clock.stages(), marks=clock.marks
    )  # fmt: skip


async def learn(stages: Stages, config: RunConfig, found: Collected, version: Version, since: Mark) -> StepResult | SkippedStep:
    """Weigh and train on a step's samples, by trainers that are at ``version``, and publish the next one."""
    step, scored, clock = found.step, found.scored, Clock()
    seconds = found.seconds | {"time/start": found.began - since.at}
    if not scored:
        stages.payload.close(step)
        seconds |= {"time/step": time.perf_counter() - since.at}
        return SkippedStep(step=step, judged=found.judged, seconds=seconds)
    staleness = age(scored, version, config.max_staleness)
    clock.mark("collected")
    async with stages.turns.training():
        clock.mark("begun")
        own = await _student_logprobs(stages, config, scored, step)
        numbers(step, scored, own)
        weighed = await stages.weighting.weigh(own, [s.scores.logprobs for s in scored])
        clock.mark("weighed")

        report = await stages.trainers.train(make_batch(step, scored, weighed.weights))
        stages.payload.close(step)
        stages.teachers.pump()
        clock.mark("trained")
    clock.mark("awake")

    publication = await stages.trainers.publish(Version(version.incarnation, version.number + 1))
    clock.mark("published")

    until = await Mark.now(stages)
    idle = idle_shares(since.busy, until.busy, report, publication, until.at - since.at)
    seconds |= clock.stages() | {
        "time/turns": clock.seconds("collected", "begun") + clock.seconds("trained", "awake"),
        "time/turn_back": clock.seconds("trained", "awake"),
        "time/step": until.at - since.at, "time/sync_wait": publication.waited_seconds,
    }  # fmt: skip
    return StepResult(
        step=step, judged=found.judged, scored=scored, staleness=staleness, student=own, weighed=weighed, report=report,
        publication=publication, ended=until.at, idle=idle, busy=until.busy, seconds=seconds, marks=found.marks | clock.marks,
        teachers_idle=teachers_idle(since.busy["teacher"], until.busy["teacher"], until.at - since.at),
    )  # fmt: skip


def in_order(scored: Sequence[ScoredRollout], kept: Sequence[int]) -> None:
    """Every sample that was kept must have been scored, once, and stand in the order of sample ids."""
    came = [s.rollout.sample_id for s in scored]
    exactly_once(came, kept)
    assert came == sorted(came), f"samples came back as {came}, not in the order of their ids"


def age(scored: Sequence[ScoredRollout], version: Version, bound: int) -> int:
    """How many versions the oldest token lies behind the weights to be trained; ``bound`` is the most allowed."""
    versions = {s.rollout.sample_id: s.rollout.version for s in scored}
    bad = [
        i for i, v in versions.items()
        if v.incarnation != version.incarnation or not 0 <= version.number - v.number <= bound
    ]  # fmt: skip
    limit = f" or up to {bound} before it" if bound else ""
    assert not bad, f"samples {bad} were not written by version {version}{limit}"
    return version.number - min(v.number for v in versions.values())


def numbers(step: int, scored: Sequence[ScoredRollout], student: Sequence[np.ndarray]) -> None:
    """Raises NonFiniteError for a log-probability that is no number: it would pass for a token that is not pivotal."""
    found = [[own, s.rollout.logprobs, s.scores.logprobs] for s, own in zip(scored, student, strict=True)]
    if np.isnan(np.concatenate(list(itertools.chain.from_iterable(found)))).any():
        bad = [s.rollout.sample_id for s, own in zip(scored, found, strict=True) if np.isnan(np.concatenate(own)).any()]
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

    @property
    def marks(self) -> dict[str, float]:
        """In seconds of ``time.perf_counter``."""
        return dict(self._at)

    def mark(self, name: str) -> None:
        self._at[name] = time.perf_counter()

    def at(self, name: str) -> float:
        return self._at[name]

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
        """Whatever both ends were marked of."""
        ends = {
            "time/first_response": ("start", "first"), "time/generate": ("start", "last"), "time/score": ("first", "scored"),
            "time/weigh": ("begun", "weighed"), "time/train": ("weighed", "trained"), "time/sync": ("awake", "published"),
        }  # fmt: skip
        return {name: self.seconds(*marks) for name, marks in ends.items() if set(marks) <= self._at.keys()}


def idle_shares(
    before: Mapping[str, Busy], after: Mapping[str, Busy], report: TrainReport, publication: Publication, seconds: float
) -> dict[str, float]:
    """Share of the step in which each pool's workers did nothing, on average over those that were there all the time."""
    worked = {pool: _worked(before[pool], after[pool]) for pool in after}
    worked["trainer"] = float(np.mean(report.busy_seconds)) + publication.seconds
    return {f"idle/{pool}": _idle(busy, seconds) for pool, busy in worked.items()}


def teachers_idle(before: Busy, after: Busy, seconds: float) -> dict[str, float]:
    """As above, by the pool of each of several teachers, whose workers are called TEACHER/REPLICA/PID; else empty."""
    found: dict[str, float] = {}
    for teacher in {worker.split("/")[0] for worker in after if worker.count("/") == 2}:
        own = {worker: busy for worker, busy in after.items() if worker.startswith(f"{teacher}/")}
        found[f"teacher.{teacher}"] = _idle(_worked(before, own), seconds)
    return found


def _idle(busy: float, seconds: float) -> float:
    return float(np.clip(1 - busy / seconds, 0, 1))


def _worked(before: Busy, after: Busy) -> float:
    both = before.keys() & after.keys()
    return float(np.mean([after[name] - before[name] for name in both])) if both else 0.0
