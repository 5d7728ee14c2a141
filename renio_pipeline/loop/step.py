"""The step, and the stages that it asks.

    prompts ──> generators ──> teachers ──> weighting ──> trainers
    (cursor)        ^     each response goes on as it ends    │
                    └──────── publish: version N+1 ───────────┘

Who waits for whom: a teacher never waits for the slowest response of the step; weighting waits for every score, because
its normaliser is over the global batch; the trainers wait for the weights. With ``max_staleness`` 0 the next step waits for the
sync; with k its responses may be written and scored by weights that are up to k versions older, while the trainers work (see
``renio_pipeline.loop.lookahead``). Stages are protocols: the loop does not care whether they are Ray pools or fakes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.loop.invariants import age, in_order, numbers
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.timing import Clock
from renio_pipeline.loop.utilisation import Mark, idle_shares, teachers_idle
from renio_pipeline.stages.outcomes import Collected, SkippedStep, StepResult
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import Prompt, Rollout, ScoredRollout, TrainBatch, TrainSample, Version


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
    )


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
        stages.teachers.dispatch()
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
        step=step,
        judged=found.judged,
        scored=scored,
        staleness=staleness,
        student=own,
        weighed=weighed,
        report=report,
        publication=publication,
        ended=until.at,
        idle=idle,
        busy=until.busy,
        seconds=seconds,
        marks=found.marks | clock.marks,
        teachers_idle=teachers_idle(since.busy["teacher"], until.busy["teacher"], until.at - since.at),
    )


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
