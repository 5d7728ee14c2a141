"""Stages that are fakes, around which the real step and the real run go: in this process, without engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.data.solutions import Solutions
from renio_pipeline.grading.grader import Grader
from renio_pipeline.in_process.weighting import InProcessWeighting
from renio_pipeline.loop.run import Run
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.step import train_step
from renio_pipeline.metrics.sink import JsonlSink, Sink
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.checkpoint_files import THE_START, RunState
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.off_policy import with_off_policy
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.stages.protocols import NoGenerators, Stages
from renio_pipeline.types import (
    Continuation,
    ContinuationRequest,
    Prompt,
    Publication,
    Rollout,
    ScoredRollout,
    TeacherScores,
    TrainBatch,
    TrainReport,
    Version,
)
from tests.unit.conftest import make_config

BATCH = 6
EOS = 1
FIRST = Version(0, 0)
KINDS = ("incorrect", "correct", "unfinished")


def kind(sample_id: int) -> str:
    """The verdict that a fake response is made for."""
    return KINDS[sample_id % 3]


def ratio(sample_id: int) -> float:
    """log p_S - log p_T at the one pivotal token of a fake response that is not correct."""
    return 0.0 if kind(sample_id) == "correct" else 1.0 + 0.1 * (sample_id % 7)


@dataclass
class FakeGenerators:
    """Writes a response whose verdict its sample id fixes; the last prompt's comes first."""

    tokenizer: Any
    size: int = 1
    version: Version = FIRST
    calls: list[tuple[list[int], float]] = field(default_factory=list)
    before_last: Callable[[], Any] = lambda: asyncio.sleep(0)

    def write(self, prompt: Prompt) -> Rollout:
        row = prompt.row
        assert row.solution is not None
        text = {"incorrect": "#1000000", "correct": row.solution, "unfinished": "3+4"}[kind(prompt.sample_id)]
        stops = kind(prompt.sample_id) != "unfinished"
        ids = self.tokenizer(text)["input_ids"] + [EOS] * stops
        return Rollout(
            prompt=prompt,
            token_ids=np.array(ids, np.int32),
            logprobs=np.full(len(ids), -0.5, np.float32),
            stop_reason="stop" if stops else "length",
            version=self.version,
            replica="0",
        )

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        self.calls.append(([p.sample_id for p in prompts], temperature))
        for prompt in reversed(prompts):
            if prompt is prompts[0]:
                await self.before_last()
            yield self.write(prompt)

    async def busy_seconds(self) -> dict[str, float]:
        return {"0": 0.0}


@dataclass
class FakeTeachers:
    size: int = 2
    first_scored: asyncio.Event = field(default_factory=asyncio.Event)

    def dispatch(self) -> None:
        pass

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        scored = []
        async for rollout in rollouts:
            logprobs = np.nan_to_num(rollout.logprobs, nan=-0.5)  # those of an off-policy response are not known yet
            logprobs[1] -= ratio(rollout.sample_id)
            scores = TeacherScores(sample_id=rollout.sample_id, logprobs=logprobs, payload="ref", payload_bytes=100)
            scored.append(ScoredRollout(rollout=rollout, scores=scores))
            self.first_scored.set()
        return sorted(scored, key=lambda s: s.rollout.sample_id)

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        raise AssertionError("nobody asked for a text")

    async def busy_seconds(self) -> dict[str, float]:
        return {"0": 0.0, "1": 0.0}


REPORT = TrainReport(
    loss=0.25,
    divergence=0.5,
    loss_after_pivotal=0.4,
    tokens=321,
    padding=0.1,
    mismatch_mean=0.001,
    mismatch_max=0.002,
    agreement={
        "topk/overlap": 0.8,
        "topk/teacher_mass": 0.9,
        "topk/advantage": -0.1,
        "entropy/student": 0.7,
        "entropy/teacher": 0.6,
    },
    grad_norm=1.5,
    lr=1e-3,
    busy_seconds=[0.0],
)


@dataclass
class FakeTrainers:
    generators: FakeGenerators
    report: TrainReport = REPORT
    batches: list[TrainBatch] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    size: int = 1
    restarts: int = 0

    async def while_healthy(self, waiting: Any) -> Any:
        return await waiting

    async def begin(self, point: Any) -> None:
        raise AssertionError("no rank was lost")

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]:
        """The generator's, or -0.5 where it has none, but for the pivotal token, which is likelier by 0.25."""
        return {
            s.sample_id: np.nan_to_num(s.student_logprobs, nan=-0.5) + 0.25 * (np.arange(len(s.response_ids)) == 1)
            for s in batch.samples
        }

    async def train(self, batch: TrainBatch) -> TrainReport:
        self.batches.append(batch)
        return self.report

    async def publish(self, version: Version) -> Publication:
        self.versions.append(version)
        self.generators.version = version
        return Publication(version=version, bytes=1000, publish_seconds=0.1, receive_seconds=0.2, seconds=0.3)

    async def save(self, folder: str) -> None:
        assert not any(Path(folder).iterdir())
        Path(folder, "weights").write_text("w")

    async def written(self) -> None:
        pass


@dataclass
class Notes:
    """What a person would have seen."""

    notes: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        self.steps.append(step)

    def evaluation(self, step: int, result: Any) -> None:
        self.evaluations.append(step)


@dataclass
class FakeSink(Sink):
    steps: list[int] = field(default_factory=list)
    closed: int = 0

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.steps.append(step)

    def close(self) -> None:
        self.closed += 1


def config_of(**changes: Any) -> RunConfig:
    shared = {
        "steps": 3,
        "batch_size": BATCH,
        "max_response_tokens": 48,
        "data": {"problems": 8},
        "evaluate": {"problems": 5},
        "sampling": {"temperature": 0.9},
        "objective": {"type": "top_k_forward_kl", "k": 4},
    }
    return make_config(**(shared | changes))


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(config_of())


def stages_of(prepared: Prepared, config: RunConfig) -> Stages:
    generators = FakeGenerators(prepared.tokenizer)
    made = Stages(
        generators=generators if config.generates else NoGenerators(),
        teachers=FakeTeachers() if config.all_teachers else None,
        trainers=FakeTrainers(generators),
        weighting=InProcessWeighting(config) if config.distils else None,
    )
    if not config.on_solutions:
        return made
    solutions = Solutions(prepared.tokenizer, most=config.max_response_tokens, vocab_size=prepared.vocab_size)
    return with_off_policy(made, config, solutions=solutions, end_tokens={})


def prompts_of(prepared: Prepared, config: RunConfig) -> list[Prompt]:
    return Cursor(prepared.prompt_ids, prepared.rows, config).take(config.batch_size)


async def step_of(prepared: Prepared, config: RunConfig, stages: Stages, version: Version = FIRST) -> StepResult:
    async with asyncio.timeout(60):
        judge = Grader(prepared.task, prepared.tokenizer).judge
        selection = Selection(config, Cursor(prepared.prompt_ids, prepared.rows, config).take, judge)
        return await train_step(stages, config, selection, 1, version)


def run_of(folder: Path, prepared: Prepared, **changes: Any) -> Run:
    config = config_of(run_dir=str(folder / "run"), **changes)
    return run_with(prepared, config, stages_of(prepared, config))


def run_with(prepared: Prepared, config: RunConfig, stages: Stages, state: RunState = THE_START) -> Run:
    """A run with these stages from ``state`` on, that writes its metrics."""
    directory = RunDirectory(config, state)
    return Run(
        config=config,
        prepared=prepared,
        stages=stages,
        directory=directory,
        progress=Notes(),
        sinks=[JsonlSink(directory.metrics)],
        start=state,
    )
