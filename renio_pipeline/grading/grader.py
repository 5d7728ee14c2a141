"""Reading a response, once: its text, the verdict on it, and what it says last.

A task whose grading is fast is asked here and now. One that is ``slow`` is asked in worker processes: each response has a
deadline, after which its worker is killed and the response counts as incorrect, so that no verifier stalls a run. The event
loop never waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from renio_pipeline.grading.workers import Graded, Graders
from renio_pipeline.tasks import Task
from renio_pipeline.types import Rollout, Verdict

DEADLINE = 60.0  # seconds for one response
MOST_WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A response that was read once, for grading and logs."""

    rollout: Rollout
    text: str
    verdict: Verdict | None
    answer: str | None = None  # what it says last, see ``Task.final_answer``; None: it is not finished
    given_up: bool = False  # no verdict came in time, or two graders died of it: it counts as incorrect


Judge = Callable[[Rollout], Awaitable[Judged]]


class Grader:
    """Usage: ``await grader.judge(rollout)``, as often and as many at a time as wanted; ``await grader.close()`` at the end."""

    def __init__(self, task: Task, tokenizer: Any, *, seconds: float = DEADLINE, workers: int | None = None) -> None:
        """``seconds``: a slow task's deadline for one response. Its workers start when the first response comes."""
        self._task, self._tokenizer = task, tokenizer
        count = workers or min(MOST_WORKERS, os.cpu_count() or 1)
        self._graders = Graders(*task.recipe, seconds=seconds, count=count) if task.slow else None

    async def judge(self, rollout: Rollout) -> Judged:
        """Raises RuntimeError with the task's own traceback where its code raises in a worker."""
        text = self._tokenizer.decode(rollout.token_ids, skip_special_tokens=True)
        cut = rollout.stop_reason == "length"  # what stands last is not what it would have said last
        found = await self._grade(rollout, "" if cut and self._graders else text)
        verdict: Verdict | None = found.verdict and ("unfinished" if cut else found.verdict)
        return Judged(
            rollout=rollout, text=text, verdict=verdict, answer=None if cut else found.answer, given_up=found.given_up
        )

    async def _grade(self, rollout: Rollout, text: str) -> Graded:
        row = rollout.prompt.row
        if self._graders is not None:
            return await self._graders.grade(row, text)
        return Graded(verdict=self._task.verify(row, text), answer=self._task.final_answer(text))

    async def close(self) -> None:
        """End the workers, and what they have under way."""
        if self._graders is not None:
            await self._graders.close()

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.shield(self.close())
