"""The step, and the stages that it calls.

    prompts ──> generators ──> teachers ──> weighting ──> trainers
    (cursor)        ^     each response is scored as it ends   │
                    └──────── publish: version N+1 ───────────┘

Who waits for whom: a teacher never waits for the slowest response of the step; weighting waits for every score, because
its normaliser is over the global batch; the trainers wait for the weights. With ``max_staleness`` 0 the next step waits for the
sync; with k its responses may be written and scored by weights that are up to k versions older, while the trainers work (see
``renio_pipeline.loop.lookahead``). Stages are protocols: the loop does not care whether they are Ray pools or fakes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.loop.invariants import age, in_order, numbers
from renio_pipeline.loop.probing import Probing
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.timing import StepTimer, Utilisation, idle_shares, teachers_idle
from renio_pipeline.stages.outcomes import Collected, SkippedStep, StepResult
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import Prompt, Rollout, ScoredRollout, TrainBatch, TrainSample, Version
from renio_pipeline.weightings import ScoredBatch
from renio_pipeline.weightings.step import Weighed


async def train_step(
    stages: Stages, config: RunConfig, selection: Selection, step: int, version: Version, probing: Probing | None = None
) -> StepResult | SkippedStep:
    """One step without overlap: write, score, weigh, train, publish."""
    since = await Utilisation.now(stages)
    return await learn(stages, config, await collect(stages, config, selection, step), version, since, probing)


async def collect(stages: Stages, config: RunConfig, selection: Selection, step: int) -> Collected:
    """Write and score a step's samples. Several steps may be under way at a time."""
    timer = StepTimer()
    stages.payload.open(step)

    def write(prompts: Sequence[Prompt]) -> AsyncIterator[Rollout]:
        return timer.responses(stages.generators.generate(prompts, config.sampling.temperature))

    scored = await stages.teachers.score(selection.responses(write), step)
    timer.scored()
    in_order(scored, [i for i in selection.kept if i not in stages.quarantined])
    return Collected(step=step, judged=selection.judged, scored=scored, began=timer.began, seconds=timer.seconds)


async def learn(
    stages: Stages, config: RunConfig, found: Collected, version: Version, since: Utilisation, probing: Probing | None = None
) -> StepResult | SkippedStep:
    """Weigh and train on a step's samples, by trainers that are at ``version``, and publish the next one.

    ``probing``: what the weighting ``adaptive`` learns from; None: it learns nothing.
    """
    step, scored, timer = found.step, found.scored, StepTimer()
    seconds = found.seconds | {"time/start": found.began - since.at}
    if not scored:
        stages.payload.close(step)
        return SkippedStep(step=step, judged=found.judged, seconds=seconds | {"time/step": timer.began - since.at})
    staleness = age(scored, version, config.max_staleness)

    async with timer.turn(stages.turns):
        with timer.span("weigh"):
            scored, student = await _student_logprobs(stages, config, scored, step)
            numbers(step, scored, student)
            weighed = await _weigh(stages, found, scored_batch(found, student), probing)
        with timer.span("train"):
            report = await stages.trainers.train(weighed_batch(step, scored, weighed))
            stages.payload.close(step)
            stages.teachers.dispatch()
    if config.follow and probing is not None:
        await probing.ended()  # else it would depend on time which weights of the teacher go on
    with timer.span("sync"):
        publication = await stages.trainers.publish(Version(version.incarnation, version.number + 1))

    until = await Utilisation.now(stages)
    whole = until.at - since.at
    return StepResult(
        step=step,
        judged=found.judged,
        scored=scored,
        staleness=staleness,
        student=student,
        weighed=weighed,
        report=report,
        publication=publication,
        ended=until.at,
        idle=idle_shares(since.busy, until.busy, report, publication, whole),
        teachers_idle=teachers_idle(since.busy["teacher"], until.busy["teacher"], whole),
        busy=until.busy,
        seconds=seconds | _learning_seconds(timer) | {"time/step": whole, "time/sync_wait": publication.waited_seconds},
        spans=timer.spans,
    )


def _by_student(found: Collected, batch: ScoredBatch) -> tuple[Collected, ScoredBatch]:
    """A step's samples without those that the student did not write."""
    own = [i for i in range(len(batch)) if not (batch.off_policy and batch.off_policy[i])]
    return replace(found, scored=[found.scored[i] for i in own]), batch.part(own)


async def _weigh(stages: Stages, found: Collected, batch: ScoredBatch, probing: Probing | None) -> Weighed:
    if probing is None:
        return await stages.weighting.weigh(batch)
    await probing.take_in()
    weighed = await stages.weighting.weigh(batch)
    probing.begin(*_by_student(found, batch), weighed.state)
    return weighed


def _learning_seconds(timer: StepTimer) -> dict[str, float]:
    """The timer's metrics, with both hand-overs of the GPUs as ``time/turns``."""
    seconds = timer.seconds
    return seconds | {"time/turns": seconds.pop("time/turn_over") + seconds["time/turn_back"]}


def scored_batch(found: Collected, student: Sequence[np.ndarray]) -> ScoredBatch:
    """What a weighting sees of a step. ``student``: of each sample, [T] log p_S in nats."""
    rollouts = [s.rollout for s in found.scored]
    return ScoredBatch(
        sample_ids=[r.sample_id for r in rollouts],
        row_ids=[r.prompt.row.id for r in rollouts],
        token_ids=[r.token_ids for r in rollouts],
        student_logprobs=student,
        teacher_logprobs=[s.scores.logprobs for s in found.scored],
        verdicts=[found.judged[r.sample_id].verdict for r in rollouts],
        off_policy=[r.off_policy is not None for r in rollouts],
    )


def weighed_batch(step: int, scored: Sequence[ScoredRollout], weighed: Weighed) -> TrainBatch:
    """The step's global batch with its weights."""
    plain = make_batch(step, scored, weighed.weights)
    factors = [None] * len(scored) if weighed.token_factors is None else weighed.token_factors
    until = [int(positions[0]) + 1 if len(positions) else None for positions in weighed.pivotal]
    more = zip(plain.samples, factors, until, strict=True)
    return replace(plain, samples=tuple(replace(s, token_factors=own, until_pivotal=n) for s, own, n in more))


def make_batch(step: int, scored: Sequence[ScoredRollout], weights: np.ndarray) -> TrainBatch:
    """The step's global batch without token factors. weights [B]."""
    samples = tuple(
        TrainSample(
            sample_id=s.rollout.sample_id,
            prompt_ids=s.rollout.prompt.student_ids,
            response_ids=s.rollout.token_ids,
            student_logprobs=s.rollout.logprobs,
            teacher_logprobs=s.scores.logprobs,
            weight=float(weight),
            payload=s.scores.payload,
            off_policy=s.rollout.off_policy is not None,
        )
        for s, weight in zip(scored, weights, strict=True)
    )
    return TrainBatch(step=step, samples=samples)


async def _student_logprobs(
    stages: Stages, config: RunConfig, scored: Sequence[ScoredRollout], step: int
) -> tuple[list[ScoredRollout], list[np.ndarray]]:
    """The samples, and log p_S that their weights are computed from, [T] of each: the generator's, or another trainer forward.

    No generator knows them of a response that the student did not write, so the trainer's become the rollout's own.
    """
    every = config.student_logprobs == "trainer"
    asked = [s for s in scored if every or s.rollout.off_policy is not None]
    by_id = await stages.trainers.logprobs(make_batch(step, asked, np.ones(len(asked)))) if asked else {}

    def known(s: ScoredRollout) -> ScoredRollout:
        if s.rollout.off_policy is None:
            return s
        return replace(s, rollout=replace(s.rollout, logprobs=by_id[s.rollout.sample_id]))

    found = [known(s) for s in scored]
    return found, [by_id.get(s.rollout.sample_id, s.rollout.logprobs) for s in found]
