"""The stages that a step calls, as protocols: Ray pools, one process or fakes implement them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.stages.elastic_pool import ElasticPool
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.turns import Apart, Turns
from renio_pipeline.types import (
    Busy,
    Continuation,
    ContinuationRequest,
    Prompt,
    Publication,
    Rollout,
    ScoredRollout,
    TrainBatch,
    TrainReport,
    Version,
)
from renio_pipeline.weightings import ScoredBatch, State
from renio_pipeline.weightings.step import Weighed

T = TypeVar("T")


class TrainerLost(RuntimeError):
    """A trainer rank died or stopped answering: the current step is void, and training resumes from a checkpoint."""


class Generators(Protocol):
    @property
    def size(self) -> int: ...

    def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        """Yield one response per prompt, each as soon as it is complete. ``temperature`` is that of sampling."""
        ...

    async def busy_seconds(self) -> Busy: ...


class NoGenerators:
    """The generators of a run in which the student writes nothing."""

    size = 0

    def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        raise AssertionError(f"nobody writes responses here, but {len(prompts)} were asked for")

    async def busy_seconds(self) -> Busy:
        return {}


class Teachers(Protocol):
    @property
    def size(self) -> int: ...

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Score rollouts as they arrive. Returns them in the order of sample ids."""
        ...

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        """Continue prompts: of each request, in their order, its ``n`` continuations.

        May be called at any time, also while responses are scored. A configuration whose teachers are to write is checked by
        ``renio_pipeline.config.teacher_writing.check_teachers_write``.

        Raises:
            KillsWorkers: a request ended every worker that had it.
            RuntimeError: these teachers cannot write, or an engine refused a request.
        """
        ...

    def dispatch(self) -> None:
        """Hand out queued work: the payload budget may have room again."""
        ...

    async def busy_seconds(self) -> Busy: ...


class Weighting(Protocol):
    async def weigh(self, batch: ScoredBatch) -> Weighed:
        """Weigh a step's global batch, and move on to the state after it."""
        ...

    async def state(self) -> State:
        """The weighting's state, as JSON can hold it; None before the first step."""
        ...

    async def restore(self, state: State) -> None:
        """Go back to an earlier state of the weighting."""
        ...

    def status(self) -> dict[str, int]:
        """``target``, ``serving``, ``restarts``."""
        ...


class Trainers(Protocol):
    """Every method except ``begin`` raises TrainerLost when a rank is lost."""

    @property
    def size(self) -> int: ...

    @property
    def restarts(self) -> int: ...

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]: ...

    async def train(self, batch: TrainBatch) -> TrainReport:
        """Forward and backward of the whole batch, then the optimizer step; each rank then writes its ledger."""
        ...

    async def publish(self, version: Version) -> Publication: ...

    async def save(self, folder: str) -> None: ...

    async def written(self) -> None: ...

    async def while_healthy(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Await something else while every rank is healthy."""
        ...

    async def begin(self, point: ResumePoint) -> None:
        """Start new ranks from a checkpoint."""
        ...


@dataclass(kw_only=True)
class Stages:
    generators: Generators
    teachers: Teachers | None  # None: the student learns from rewards alone
    weighting: Weighting | None  # None without a teacher to distil from
    trainers: Trainers
    turns: Turns = field(default_factory=Apart)
    payload: PayloadBudget = field(default_factory=lambda: PayloadBudget(2**62, 1, 0))
    quarantined: set[int] = field(default_factory=set)  # ids of poison samples, which killed their workers
    pools: dict[str, ElasticPool] = field(default_factory=dict)  # by name, of which the size may change
