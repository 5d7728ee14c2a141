"""What the weighting ``adaptive`` sees of a run: evidence of one step, which counts from the next one on.

    learn 1: weigh │ train, publish            learn 2: take in │ weigh │ train, publish
                   └─ the teacher goes on, beside that ─────────┘

The evidence of a step enters the weighting's state just before the next step is weighed, or in a checkpoint between the two,
however early or late it arrives: what a run does depends on its data alone, and a checkpoint has everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.grading.grader import Judge
from renio_pipeline.probe.continuations import Asking
from renio_pipeline.probe.during_run import affordable, recovery_of
from renio_pipeline.probe.responses import Response
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.stages.outcomes import Collected
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.weightings import ScoredBatch, State, weighting_of
from renio_pipeline.weightings.adaptive import Adaptive, pace_of
from renio_pipeline.weightings.recovery import Evidence, Pace


class Probing:
    """Usage, in each step: ``take_in`` before it is weighed, ``begin`` after; ``take_in`` before a checkpoint; ``cancel`` last.

    With any weighting but ``adaptive`` nothing happens.
    """

    def __init__(
        self,
        config: RunConfig,
        stages: Stages,
        judge: Judge,
        *,
        context: int,
        note: Callable[[str], None] = lambda text: None,
        working: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """
        Args:
            context: tokens that the teachers' engines hold.
            working: the context in which the teachers are asked: a pause waits for its end.
        """
        self._config, self._stages, self._judge, self._context = config, stages, judge, context
        self._note, self._working = note, working
        weighting = weighting_of(config)
        self._weighting = weighting if isinstance(weighting, Adaptive) else None
        self._under_way: asyncio.Task[Evidence | None] | None = None
        self._one_takes = asyncio.Lock()  # a checkpoint may be asked for as a step begins, and evidence counts once
        self._step = 0  # of which it is
        self._told = False

    async def take_in(self) -> None:
        """Wait for the evidence that is under way, and move the weighting's state by it."""
        async with self._one_takes:
            if self._under_way is None or self._weighting is None:
                return
            evidence = await self.ended()
            self._under_way = None
            if evidence is None:
                return
            stage = self._stages.weighting
            assert stage is not None, "evidence is for a weighting"
            before = await stage.state()
            after = self._weighting.learned(before, evidence)
            await stage.restore(after)
            self._tell(pace_of(before), pace_of(after))

    async def ended(self) -> Evidence | None:
        """Wait until nothing is under way. The evidence stays to be taken in."""
        return await self._under_way if self._under_way is not None else None

    def begin(self, found: Collected, batch: ScoredBatch, state: State) -> None:
        """Look at a step's responses, if that is due.

        Args:
            batch: the same step's, as it was weighed.
            state: the weighting's, after it.
        """
        if self._weighting is None or not self._weighting.due(state):
            return
        assert self._under_way is None, "the evidence of an earlier step was not taken in"
        self._step = found.step
        if self._weighting.signal_of(self._config) == "scores":
            self._under_way = asyncio.create_task(_known(self._weighting.evidence(batch)))
        elif (ask := self._asked(found, batch)) is not None:
            self._under_way = asyncio.create_task(self._probe(ask))

    async def give_up(self) -> None:
        """Drop what is under way, unless it has ended: the weighting then learns nothing from that step."""
        if self._under_way is not None and not self._under_way.done():
            await self.cancel()

    async def cancel(self) -> None:
        """Drop what is under way."""
        task, self._under_way = self._under_way, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _asked(self, found: Collected, batch: ScoredBatch) -> Callable[[], Awaitable[Evidence]] | None:
        """The probe of a step; None where there is nothing to probe."""
        assert self._weighting is not None
        config = self._config
        asking = Asking(
            each=1,
            temperature=config.temperature,  # what a teacher teaches is its distribution at the distillation temperature
            max_tokens=config.max_response_tokens,
            context=self._context,
            seed=sample_seed(config.seed, found.step),
            stop_token_ids=tuple(config.sampling.stop_token_ids),
        )
        responses = _responses(found, batch.student_logprobs, config)
        scored = sum(len(r.prompt.teacher_ids) + len(r.token_ids) for r in responses)
        chosen = affordable(responses, asking, most=self._weighting.prefixes, tokens=self._weighting.share * scored)
        if not chosen:
            if any(r.wrong and r.first is not None for r in responses):
                self._tell_too_small()
            return None
        teachers = self._stages.teachers
        assert teachers is not None, "a weighting goes by a teacher"
        ask = partial(recovery_of, teachers, self._judge, chosen, asking)
        return partial(ask, scored=scored, routed=config.routed)

    async def _probe(self, ask: Callable[[], Awaitable[Evidence]]) -> Evidence | None:
        with self._working():
            try:
                return await ask()
            except KillsWorkers as error:
                self._note(f"step {self._step}: the weighting learns nothing from this step: {error}")
                return None

    def _tell_too_small(self) -> None:
        if not self._told and self._weighting is not None:
            self._told = True
            self._note(
                f"step {self._step}: weighting.share ({self._weighting.share:g}) is too small for the teacher to go on from "
                "one wrong response; the weighting does not move without evidence; raise it"
            )

    def _tell(self, old: Pace, new: Pace) -> None:
        moved = [
            f"{name} {one:g} → {other:g}"
            for name, one, other in (("λ", old.strength, new.strength), ("γ", old.after_pivotal, new.after_pivotal))
            if one != other
        ]
        if moved and new.recovery is not None:
            value, low, high = (f"{100 * share:.1f}" for share in new.recovery)
            self._note(
                f"after step {self._step} the weighting moves {', '.join(moved)}: the teacher recovers in {value} % "
                f"[{low}, {high}] of about {new.all_trials:.0f} cases"
            )


async def _known(evidence: Evidence) -> Evidence:
    return evidence


def _responses(found: Collected, student: Sequence[np.ndarray], config: RunConfig) -> list[Response]:
    return [
        Response(
            prompt=s.rollout.prompt,
            token_ids=s.rollout.token_ids,
            stop_reason=s.rollout.stop_reason,
            verdict=found.judged[s.rollout.sample_id].verdict,
            generator=logprobs,
            teacher=s.teacher_logprobs,
            pivotal=config.weighting.pivotal or config.pivotal,  # that of the weights, whatever the diagnostics show
        )
        for s, logprobs in zip(found.scored, student, strict=True)
    ]
