"""A model goes on from the beginning of a response, and the whole is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.grading.grader import Judge, Judged
from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.types import FIRST_VERSION, ContinuationRequest, Prompt, Rollout, StopReason

Place = str
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """The beginning of a response, which may be empty."""

    prompt: Prompt
    ids: np.ndarray  # [L] int32
    ended: bool = False  # it is a whole response already: nothing can follow its end token


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How continuations are asked for."""

    each: int  # continuations of one beginning
    temperature: float
    max_tokens: int  # of the whole response, its beginning included
    context: int  # of the engine: tokens of prompt, beginning and continuation
    seed: int
    stop_token_ids: tuple[int, ...] = ()

    def room(self, begun: Begun) -> int:
        """The most tokens that one continuation of it may have: 0 where nothing can follow."""
        room = min(self.max_tokens, self.context - len(begun.prompt.teacher_ids)) - len(begun.ids)
        return 0 if begun.ended else max(0, room)


def whole(begun: Begun, token_ids: np.ndarray, stop_reason: StopReason) -> Rollout:
    """The response that a continuation makes of its beginning, for a verdict."""
    ids = np.concatenate([begun.ids, token_ids]).astype(np.int32)
    nothing = np.zeros(len(ids), np.float32)  # verdicts do not look at log-probabilities
    return Rollout(prompt=begun.prompt, token_ids=ids, logprobs=nothing, stop_reason=stop_reason, version=FIRST_VERSION)


async def go_on(
    teachers: Teachers, judge: Judge, begun: Sequence[Begun], asking: Asking, teacher: str = ""
) -> list[list[Judged]]:
    """Have a teacher go on from each beginning after its own prompt, and judge the whole responses.

    A beginning that is a whole response already is judged as it is; one that leaves no room in the context is unfinished.

    Args:
        teacher: the name of one of several teachers.

    Returns:
        The judged responses of each beginning: ``asking.each``, or the one that it is itself.
    """
    rooms = [asking.room(b) for b in begun]
    asked = [i for i, room in enumerate(rooms) if room > 0]
    requests = [
        ContinuationRequest(
            prompt_ids=np.concatenate([begun[i].prompt.teacher_ids, begun[i].ids]).astype(np.int32),
            max_tokens=rooms[i],
            seed=int(np.random.default_rng([asking.seed, i]).integers(2**31)),
            n=asking.each,
            temperature=asking.temperature,
            stop_token_ids=asking.stop_token_ids,
            teacher=teacher or None,
        )
        for i in asked
    ]
    written = dict(zip(asked, await teachers.write(requests), strict=True)) if requests else {}
    nothing = np.empty(0, np.int32)
    responses = [
        [whole(b, c.token_ids, c.stop_reason) for c in written[i]]
        if i in written
        else [whole(b, nothing, "stop" if b.ended else "length")]
        for i, b in enumerate(begun)
    ]
    judged = iter(await asyncio.gather(*(judge(one) for of_one in responses for one in of_one)))
    return [[next(judged) for _ in of_one] for of_one in responses]
