"""``renio score``, batch by batch: the student writes, the teachers score what is not known yet, the recorder keeps both."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.recordings.keys import prompt_key, score_key
from renio_pipeline.recordings.parts import Scored, unlearnable
from renio_pipeline.recordings.recorder import Recorder, with_signals
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Generators, Teachers
from renio_pipeline.types import Prompt, Rollout, ScoredRollout, TopK

AT_A_TIME = 2  # batches under way: while the last responses of one are written, the next one has begun
Fetch = Callable[[Any], Mapping[int, TopK]]  # from a payload's reference to its table


@dataclass(kw_only=True)
class Scoring:
    """Usage: ``await scoring.record(prompts)``."""

    generators: Generators
    teachers: Teachers
    budget: PayloadBudget
    config: RunConfig
    recorder: Recorder
    decode: Callable[[np.ndarray], str]
    fetch: Fetch
    done: Callable[[int], None]  # called with the number of responses that a part added
    note: Callable[[str], None]  # told which responses were left out, and why
    reused: int = field(default=0, init=False)  # responses whose signals were known

    async def record(self, prompts: Sequence[Prompt]) -> None:
        """Record a response to each prompt that has none yet. Raises ConfigError as ``Recorder.missing`` does."""
        missing, size = self.recorder.missing(prompts), self.config.batch_size
        under_way: deque[asyncio.Task[list[Scored]]] = deque()
        try:
            for number, start in enumerate(range(0, len(missing), size), 1):
                self.budget.open(number)
                under_way.append(asyncio.create_task(self._batch(missing[start : start + size], number)))
                if len(under_way) == AT_A_TIME:
                    self._keep(await under_way.popleft())
            while under_way:
                self._keep(await under_way.popleft())
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _keep(self, found: list[Scored]) -> None:
        self.recorder.add(found)
        self.done(len(found))

    async def _batch(self, prompts: Sequence[Prompt], number: int) -> list[Scored]:
        """The responses to a batch's prompts, in the order of sample ids; without those that a pool has quarantined, and
        without those that no run could learn from."""
        found: list[Scored] = []
        asked: dict[str, list[Scored]] = {}  # by score key: equal responses are scored once

        async def unknown() -> AsyncIterator[Rollout]:
            async for rollout in self.generators.generate(prompts, self.config.sampling.temperature):
                response = self._response(rollout)
                if (known := self.recorder.known(response.score_key, response)) is not None:
                    self.reused += 1
                    found.append(known)
                elif response.score_key in asked:
                    self.reused += 1
                    asked[response.score_key].append(response)
                else:
                    asked[response.score_key] = [response]
                    yield rollout

        scored = {s.rollout.sample_id: s for s in await self.teachers.score(unknown(), number)}
        for alike in asked.values():
            if (signals := scored.get(alike[0].sample_id)) is not None:
                logprobs, table = self._signals(signals)
                found += [with_signals(each, logprobs, table) for each in alike]
        self.budget.close(number)
        self.teachers.dispatch()
        return sorted(filter(self._learnable, found), key=lambda each: each.sample_id)

    def _learnable(self, response: Scored) -> bool:
        if (why := unlearnable(response)) is not None:
            self.note(f"sample {response.sample_id} (row {response.row_id!r}) is left out: {why}")
        return why is None

    def _response(self, rollout: Rollout) -> Scored:
        """A response without signals."""
        prompt = rollout.prompt
        teacher, asked = (prompt.row.teacher or "") if self.config.routed else "", prompt_key(prompt)
        identity = self.recorder.recording.manifest.teachers[teacher].identity
        return Scored(
            sample_id=rollout.sample_id,
            row_id=prompt.row.id,
            teacher=teacher,
            prompt_key=asked,
            score_key=score_key(identity, asked, rollout.token_ids),
            text=self.decode(rollout.token_ids),
            stop_reason=rollout.stop_reason,
            token_ids=rollout.token_ids,
            student_logprobs=rollout.logprobs,
            teacher_logprobs=np.zeros(0, np.float32),
        )

    def _signals(self, scored: ScoredRollout) -> tuple[np.ndarray, TopK | None]:
        scores = scored.scores
        assert scores is not None, "a teacher scored it"
        if not self.config.objective.payload.top_k:
            return scores.logprobs, None
        return scores.logprobs, self.fetch(scores.payload)[scored.rollout.sample_id]
