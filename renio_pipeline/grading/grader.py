"""Reading a response, once: its text, the verdict on it, and its final answer.

A task whose grading is fast is asked directly. A ``slow`` one is asked in worker processes, each response under a deadline of
CPU time; a response that exceeds it twice counts as incorrect, so that no verifier stalls a run. The event loop never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from renio_pipeline.grading.questions import grade
from renio_pipeline.grading.workers import Question, WorkerPool
from renio_pipeline.sandbox.deadline import Deadline
from renio_pipeline.tasks import Task
from renio_pipeline.types import Rollout, Verdict

DEADLINE = Deadline.of(60.0)  # for one response


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A response that was read once, for grading and logs."""

    rollout: Rollout
    text: str
    verdict: Verdict | None
    answer: str | None = None  # see ``Task.final_answer``; None: the response is not finished
    score: float | None = None  # from 0 to 1, of a task that gives scores
    given_up: bool = False  # two workers died of it or exceeded the deadline: it counts as incorrect


Judge = Callable[[Rollout], Awaitable[Judged]]


class Grader:
    """Usage: ``await grader.judge(rollout)``, as often and as many at a time as wanted; ``await grader.close()`` at the end."""

    def __init__(self, task: Task, tokenizer: Any, *, deadline: Deadline = DEADLINE, workers: int | None = None) -> None:
        """``deadline``: for a slow task's verdict on one response. Its ``workers`` start with the first response."""
        self._task, self._tokenizer = task, tokenizer
        self._pool = WorkerPool(task.recipe, deadline, workers) if task.slow else None

    async def judge(self, rollout: Rollout) -> Judged:
        """Raises RuntimeError with the task's own traceback where its code raises in a worker."""
        text = self._tokenizer.decode(rollout.token_ids, skip_special_tokens=True)
        if rollout.off_policy is not None:  # a verdict says what the student can do
            return Judged(rollout=rollout, text=text, verdict=None)
        cut = rollout.stop_reason == "length"  # its last words are not its final answer
        found, given_up = await self._grade(rollout, "" if cut and self._pool else text)
        verdict: Verdict | None = found["verdict"] and ("unfinished" if cut else found["verdict"])
        answer = None if cut else found["answer"]
        score = found.get("score")
        if score is not None and cut:
            score = 0.0  # as an unfinished response is worth
        return Judged(rollout=rollout, text=text, verdict=verdict, answer=answer, score=score, given_up=given_up)

    async def _grade(self, rollout: Rollout, text: str) -> tuple[dict[str, Any], bool]:
        row = rollout.prompt.row
        if self._pool is None:
            return grade(self._task, row, text), False
        (answer,) = await self._pool.ask([Question(verb="grade", row=row, text=text)])
        if answer.error is not None:
            raise RuntimeError(f"the task raised while it graded:\n{answer.error.traceback}")
        if answer.given_up is not None:
            return {"verdict": "incorrect", "answer": None}, True
        return answer.value, False

    async def close(self) -> None:
        """End the workers, whatever they do."""
        if self._pool is not None:
            await self._pool.close()

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.shield(self.close())


async def judge_all(rollouts: AsyncIterator[Rollout], judge: Judge) -> list[Judged]:
    """Judge each response while the next ones are written."""
    under_way: list[asyncio.Future[Judged]] = []
    try:
        async for rollout in rollouts:
            under_way.append(asyncio.ensure_future(judge(rollout)))
        return await asyncio.gather(*under_way)
    finally:
        for task in under_way:
            task.cancel()


def by_student(judged: Iterable[Judged]) -> list[Judged]:
    """Those that the student wrote: not what ``data.off_policy`` put in their places."""
    return [j for j in judged if j.rollout.off_policy is None]
