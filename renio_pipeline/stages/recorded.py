"""``teacher.type: recorded``: a run whose responses and signals come from a folder that ``renio score`` wrote.

    prompts ──┬──> the recording's responses ──> the recording's signals ──┬──> weighting, trainers
              └──> generators ──> live teachers ───────────────────────────┘
                   (rows of other teachers, and held-out problems)

A recorded response is the student's of an earlier time: it has no version, no staleness and no verdict in this run. Its weight
is computed like any other's, from the trainer's log p_S at the step that trains on it. What its writer gave it stays its
rollout's ``logprobs``, towards which ``objective.type: sampled`` corrects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from renio_pipeline.config import RunConfig
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.stages.off_policy import merged
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Generators, Stages, Teachers
from renio_pipeline.stages.teacher_routing import RoutedTeachers
from renio_pipeline.types import (
    FIRST_VERSION,
    Busy,
    Continuation,
    ContinuationRequest,
    Prompt,
    Rollout,
    ScoredRollout,
    TeacherScores,
    TopK,
)

Put = Callable[[dict[int, TopK]], Any]  # hands a table over to the trainers, and returns the reference to it


@dataclass(kw_only=True)
class RecordedTeachers:
    """One teacher, of which all that it will ever say is recorded."""

    recording: Recording
    name: str  # of the teacher, as rows name it
    config: RunConfig
    put: Put
    budget: PayloadBudget | None = None  # None: payloads need no room of their own
    size: int = 0  # workers
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    def dispatch(self) -> None:
        self._room.set()

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Raises ConfigError for a rollout that is not in the recording, DamagedError where its signals are not legible."""
        found = [await self._scored(rollout, step) async for rollout in rollouts]
        return sorted(found, key=lambda s: s.rollout.sample_id)

    async def _scored(self, rollout: Rollout, step: int) -> ScoredRollout:
        payload = self.config.objective.payload
        entry = self.recording.find(rollout.prompt, self.config.seed, self.name)
        size = len(rollout.token_ids) * payload.token_bytes(0, 0)
        while self.budget is not None and not self.budget.fits(step, size):
            self._room.clear()
            await self._room.wait()
        logprobs, table = self.recording.signals(entry, rollout.token_ids, payload.top_k)
        if self.budget is not None:
            self.budget.take(step, 1, size)
        scores = TeacherScores(
            sample_id=rollout.sample_id,
            logprobs=logprobs,
            payload=None if table is None else self.put({rollout.sample_id: table}),
            payload_bytes=size,
            replica=f"{self.name}/recorded" if self.name else "recorded",
        )
        return ScoredRollout(rollout=rollout, scores=scores)

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        """Raises RuntimeError: a recording goes on from nothing. ``check_teachers_write`` refuses such runs before."""
        raise RuntimeError("a recorded teacher writes nothing")

    async def busy_seconds(self) -> Busy:
        return {}


@dataclass(kw_only=True)
class RecordedResponses:
    """Generators, in whose place the recordings give the responses to the prompts of recorded teachers."""

    student: Generators
    recordings: Mapping[str, Recording]  # by teacher
    config: RunConfig

    @property
    def size(self) -> int:
        return self.student.size

    async def busy_seconds(self) -> Busy:
        return await self.student.busy_seconds()

    def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        recorded = [p for p in prompts if p.sample_id >= 0 and teacher_of(p, self.config) in self.recordings]
        if not recorded:
            return self.student.generate(prompts, temperature)
        taken = {p.sample_id for p in recorded}
        own = [p for p in prompts if p.sample_id not in taken]
        return merged([*([self.student.generate(own, temperature)] if own else []), self._recorded(recorded)])

    async def _recorded(self, prompts: Sequence[Prompt]) -> AsyncIterator[Rollout]:
        for prompt in prompts:
            teacher = teacher_of(prompt, self.config)
            recording = self.recordings[teacher]
            entry = recording.find(prompt, self.config.seed, teacher)
            ids, logprobs = recording.response(entry)
            yield Rollout(
                prompt=prompt,
                token_ids=ids,
                logprobs=logprobs,
                stop_reason=entry.stop_reason,
                version=FIRST_VERSION,
                off_policy="recorded",
            )
            await asyncio.sleep(0)  # responses of live students are not to wait for the disk


def teacher_of(prompt: Prompt, config: RunConfig) -> str:
    """The name of the teacher that scores a prompt's response."""
    return (prompt.row.teacher or "") if config.routed else ""


def recorded_pools(
    config: RunConfig, recordings: Mapping[str, Recording], put: Put, budget: PayloadBudget | None = None
) -> dict[str, Teachers]:
    """The recorded teachers as ``as_one_stage`` takes pools."""
    return {
        name: RecordedTeachers(recording=each, name=name, config=config, put=put, budget=budget)
        for name, each in recordings.items()
    }


def with_recorded(stages: Stages, config: RunConfig, recordings: Mapping[str, Recording]) -> Stages:
    """The stages of a run some of whose teachers are recorded: their responses come from the recordings."""
    if not recordings:
        return stages
    return replace(stages, generators=RecordedResponses(student=stages.generators, recordings=recordings, config=config))


def all_recorded(config: RunConfig, recordings: Mapping[str, Recording], put: Put) -> Teachers:
    """The stage of a run all of whose teachers are recorded."""
    pools = recorded_pools(config, recordings, put)
    return RoutedTeachers(pools) if config.teachers else pools[""]
