"""``data.off_policy``: a share of each batch that the student did not write (the λ of GKD, arXiv 2306.13649).

    prompts ──┬──> generators ──────────────────────────┬──> teachers.score, weighting, trainers
              └──> row.solution, or teachers.write ─────┘

With ``method.type: sft`` that share is the whole batch, and nothing scores or weighs it.

Such a response is scored and trained on like any other, but no weights of the student's wrote it: it has no version, no
staleness and no verdict, its log-probabilities are computed by the trainer before it is weighed, and its weight is 1 (see
``renio_pipeline.weightings.step``).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.models.end_tokens import exchanged
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.stages.protocols import Generators, Stages, Teachers
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.types import (
    FIRST_VERSION,
    Busy,
    Continuation,
    ContinuationRequest,
    EndTokens,
    OffPolicySource,
    Prompt,
    Rollout,
    Row,
    StopReason,
)

Quarantine = Callable[[int, str, str, str], None]  # see ``QuarantineLog.add``
Stream = AsyncIterator[Rollout]


class Solutions(Protocol):
    """``renio_pipeline.data.solutions.Solutions``."""

    def response(self, row: Row) -> tuple[np.ndarray, StopReason]: ...


@dataclass(frozen=True, slots=True)
class Draw:
    """Which samples of a run are off-policy: a function of its seed, its batch size and the sample's id alone.

    The ids of one batch are consecutive. Of the first k batches' ids ``share`` are off-policy, rounded to a whole sample, so
    that each batch has as many as the next, or one more. Which of a batch's ids these are is drawn at random.
    """

    share: float
    seed: int
    batch_size: int

    def __contains__(self, sample_id: int) -> bool:
        """Held-out problems have negative ids, and are always the student's to answer."""
        return sample_id >= 0 and sample_id % self.batch_size in _places(self, sample_id // self.batch_size)


@lru_cache(64)
def _places(draw: Draw, batch: int) -> frozenset[int]:
    rng, size = np.random.default_rng([draw.seed, batch]), draw.batch_size
    phase = float(np.random.default_rng(draw.seed).random())
    count = math.floor((batch + 1) * size * draw.share + phase) - math.floor(batch * size * draw.share + phase)
    return frozenset(rng.permutation(size)[:count].tolist())


@dataclass(kw_only=True)
class OffPolicyGenerators:
    """Generators, in whose place a row's solution or a teacher gives the responses to some of the prompts."""

    student: Generators
    teachers: Teachers | None  # with the source ``teacher``
    config: RunConfig
    solutions: Solutions | None  # with the source ``solution``
    end_tokens: Mapping[str, EndTokens]  # by teacher
    together: bool  # a call's texts are asked for in one call, so that they repeat exactly, or because one is made for all
    quarantine: Quarantine | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of calls for texts that are asked for together

    def __post_init__(self) -> None:
        self.drawn = Draw(self.config.off_policy_share, self.config.seed, self.config.batch_size)

    @property
    def size(self) -> int:
        return self.student.size

    async def busy_seconds(self) -> Busy:
        return await self.student.busy_seconds()

    def generate(self, prompts: Sequence[Prompt], temperature: float) -> Stream:
        foreign = [p for p in prompts if p.sample_id in self.drawn]
        if not foreign:
            return self.student.generate(prompts, temperature)
        own = [p for p in prompts if p.sample_id not in self.drawn]
        streams = [self._of_solutions(foreign) if self.solutions is not None else self._by_teachers(foreign)]
        return merged([*([self.student.generate(own, temperature)] if own else []), *streams])

    async def _of_solutions(self, prompts: Sequence[Prompt]) -> Stream:
        assert self.solutions is not None
        for prompt in prompts:
            yield _rollout(prompt, *self.solutions.response(prompt.row), "solution")

    async def _by_teachers(self, prompts: Sequence[Prompt]) -> Stream:
        parts = [prompts] if self.together else [[p] for p in prompts]
        writing = [asyncio.ensure_future(self._written(part)) for part in parts]
        try:
            for ended in asyncio.as_completed(writing):
                for rollout in await ended:
                    yield rollout
        finally:
            await _cancelled(writing)

    async def _written(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        assert self.teachers is not None, "``renio_pipeline.config.off_policy`` refuses it without a teacher"
        requests = [self._request(p) for p in prompts]
        try:
            if self.together:
                async with self._turn:
                    found = await self.teachers.write(requests)
            else:
                found = await self.teachers.write(requests)
        except KillsWorkers as error:
            if len(prompts) > 1:  # the fault of one of them
                return [rollout for p in prompts for rollout in await self._written([p])]
            if self.quarantine is None:
                raise
            (prompt,) = prompts
            self.quarantine(
                prompt.sample_id, f"its text by the teacher: {error}", prompt.row.teacher or "teacher", prompt.row.id
            )
            return []
        return [self._read(prompt, texts[0]) for prompt, texts in zip(prompts, found, strict=True)]

    def _request(self, prompt: Prompt) -> ContinuationRequest:
        sampling = self.config.sampling
        stops = exchanged(np.array(sampling.stop_token_ids, np.int64), self._pairs(prompt.row))
        return ContinuationRequest(
            prompt_ids=prompt.teacher_ids,
            max_tokens=self.config.max_response_tokens,
            seed=sample_seed(self.config.seed, prompt.sample_id),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop_token_ids=tuple(stops.tolist()),
            teacher=prompt.row.teacher if self.config.teachers is not None else None,
        )

    def _read(self, prompt: Prompt, text: Continuation) -> Rollout:
        return _rollout(prompt, exchanged(text.token_ids, self._pairs(prompt.row)), text.stop_reason, "teacher")

    def _pairs(self, row: Row) -> EndTokens:
        return self.end_tokens.get((row.teacher or "") if self.config.teachers is not None else "", ())


def with_off_policy(
    stages: Stages,
    config: RunConfig,
    *,
    solutions: Solutions | None,
    end_tokens: Mapping[str, EndTokens],
    together: bool = False,
    quarantine: Quarantine | None = None,
) -> Stages:
    """The stages as ``data.off_policy`` and ``method.type: sft`` ask for them.

    The arguments are fields of ``OffPolicyGenerators``.
    """
    if not config.off_policy_share:
        return stages
    made = OffPolicyGenerators(
        student=stages.generators,
        teachers=stages.teachers,
        config=config,
        solutions=solutions,
        end_tokens=end_tokens,
        together=together or config.deterministic,
        quarantine=quarantine,
    )
    return replace(stages, generators=made)


def _rollout(prompt: Prompt, token_ids: np.ndarray, stop_reason: StopReason, source: OffPolicySource) -> Rollout:
    return Rollout(
        prompt=prompt,
        token_ids=token_ids,
        logprobs=np.full(len(token_ids), np.nan, np.float32),  # until the trainer has computed them
        stop_reason=stop_reason,
        version=FIRST_VERSION,
        off_policy=source,
    )


async def merged(streams: Sequence[Stream]) -> Stream:
    """What the streams yield, as it comes."""
    arriving: dict[asyncio.Future[Rollout | None], Stream] = {}
    arriving |= {asyncio.ensure_future(anext(stream, None)): stream for stream in streams}
    try:
        while arriving:
            done, _ = await asyncio.wait(arriving, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                stream = arriving.pop(each)
                if (rollout := each.result()) is not None:
                    arriving[asyncio.ensure_future(anext(stream, None))] = stream
                    yield rollout
    finally:
        await _cancelled(list(arriving))
        for stream in streams:  # what they have asked for is withdrawn
            with suppress(RuntimeError):
                await stream.aclose()  # type: ignore[attr-defined]


async def _cancelled(waiting: Sequence[asyncio.Future[Any]]) -> None:
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
