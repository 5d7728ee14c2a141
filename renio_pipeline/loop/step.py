"""The step, and the stages that it calls.

    prompts ──> generators ──> teachers ──> weighting ──> trainers      (without a teacher: generators ──> trainers)
    (cursor)        ^     each response is scored as it ends   │                    (method sft:  solutions ──> trainers)
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
from renio_pipeline.rewards import Rewarded, reward_step
from renio_pipeline.stages.outcomes import Collected, SkippedStep, StepResult
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import Prompt, Publication, Rollout, ScoredRollout, TrainBatch, TrainSample, Version
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

    responses = selection.responses(write)
    if stages.teachers is None:
        written = [rollout async for rollout in responses]
        scored = [ScoredRollout(rollout=r, scores=None) for r in sorted(written, key=lambda r: r.sample_id)]
        timer.written()
    else:
        scored = await stages.teachers.score(responses, step)
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
        _close(stages, step)
        return SkippedStep(step=step, judged=found.judged, seconds=seconds | {"time/step": timer.began - since.at})
    staleness = age(scored, version, config.max_staleness)

    async with timer.turn(stages.turns):
        with timer.span("weigh"):
            scored, student = await _student_logprobs(stages, config, scored, step)
            if not config.on_solutions:
                numbers(step, scored, student)
            rewarded = rewarded_step(config, found)
            weighed = await _weigh(stages, found, student, probing)
        with timer.span("train"):
            batch = make_batch(step, scored, np.ones(len(scored))) if weighed is None else weighed_batch(step, scored, weighed)
            report = await stages.trainers.train(batch if rewarded is None else rewarded_batch(batch, rewarded))
            _close(stages, step)
    if config.follow and probing is not None:
        await probing.ended()  # else it would depend on time which weights of the teacher go on
    with timer.span("sync"):
        after = Version(version.incarnation, version.number + 1)
        # Where the student writes nothing to learn from, only an evaluation needs its weights, and has them published itself.
        publication = await stages.trainers.publish(after) if config.writes else Publication.to_nobody(after)

    until = await Utilisation.now(stages)
    whole = until.at - since.at
    return StepResult(
        step=step,
        judged=found.judged,
        scored=scored,
        staleness=staleness,
        student=student,
        weighed=weighed,
        rewarded=rewarded,
        report=report,
        publication=publication,
        ended=until.at,
        idle=idle_shares(since.busy, until.busy, report, publication, whole),
        teachers_idle=teachers_idle(since.busy.get("teacher", {}), until.busy.get("teacher", {}), whole),
        busy=until.busy,
        seconds=seconds | _learning_seconds(timer) | {"time/step": whole, "time/sync_wait": publication.waited_seconds},
        spans=timer.spans,
    )


def _close(stages: Stages, step: int) -> None:
    """Free a step's payloads, and wake the steps that wait for their room."""
    stages.payload.close(step)
    if stages.teachers is not None:
        stages.teachers.dispatch()


def _by_student(found: Collected, batch: ScoredBatch) -> tuple[Collected, ScoredBatch]:
    """A step's samples without those that the student did not write."""
    own = [i for i in range(len(batch)) if not (batch.off_policy and batch.off_policy[i])]
    return replace(found, scored=[found.scored[i] for i in own]), batch.part(own)


async def _weigh(stages: Stages, found: Collected, student: Sequence[np.ndarray], probing: Probing | None) -> Weighed | None:
    """The step's weights; None where nothing is distilled."""
    if stages.weighting is None:
        return None
    batch = scored_batch(found, student)
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
        teacher_logprobs=[s.teacher_logprobs for s in found.scored],
        verdicts=[found.judged[r.sample_id].verdict for r in rollouts],
        off_policy=[not r.by_a_student for r in rollouts],
    )


def rewarded_step(config: RunConfig, found: Collected) -> Rewarded | None:
    """What the verifier's rewards make of a step's samples; None for a run that does not learn from them."""
    ids = [s.rollout.sample_id for s in found.scored]
    judged = [found.judged[i] for i in ids]
    return reward_step(config, ids, [j.verdict for j in judged], [j.score for j in judged])


def rewarded_batch(batch: TrainBatch, rewarded: Rewarded) -> TrainBatch:
    """A step's batch with what the verifier's rewards say of each sample."""
    pairs = zip(batch.samples, rewarded.advantages, rewarded.taught, strict=True)
    return replace(batch, samples=tuple(replace(s, advantage=float(a), taught=bool(t)) for s, a, t in pairs))


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
            teacher_logprobs=None if s.scores is None else s.scores.logprobs,
            weight=float(weight),
            payload=None if s.scores is None else s.scores.payload,
            off_policy=s.rollout.off_policy is not None,
        )
        for s, weight in zip(scored, weights, strict=True)
    )
    return TrainBatch(step=step, samples=samples)


async def _student_logprobs(
    stages: Stages, config: RunConfig, scored: Sequence[ScoredRollout], step: int
) -> tuple[list[ScoredRollout], list[np.ndarray]]:
    """The samples, and log p_S that their weights are computed from, [T] of each: the generator's, or another trainer forward.

    No generator knows them of a response that the student did not write, so the trainer's become the rollout's own. A recorded
    one keeps those of the student that wrote it. Where the student writes none, nothing is weighed, and nobody asks: they stay
    NaN.
    """
    if config.on_solutions:
        return list(scored), [s.rollout.logprobs for s in scored]
    every = config.student_logprobs == "trainer"
    asked = [s for s in scored if every or s.rollout.off_policy is not None]
    by_id = await stages.trainers.logprobs(make_batch(step, asked, np.ones(len(asked)))) if asked else {}

    def known(s: ScoredRollout) -> ScoredRollout:
        if s.rollout.by_a_student:
            return s
        return replace(s, rollout=replace(s.rollout, logprobs=by_id[s.rollout.sample_id]))

    found = [known(s) for s in scored]
    return found, [by_id.get(s.rollout.sample_id, s.rollout.logprobs) for s in found]
