"""Lookahead: collecting samples before the trainer needs them, no further ahead than the staleness bound allows.

    max_staleness 0   collect 1 │ learn 1 │ collect 2 │ learn 2 │ ...

    max_staleness 1   collect 1 │ learn 1   │ learn 2   │ ...
                                │ collect 2 │ collect 3 │

Step n is trained from version n - 1 (or an older one, after steps that were skipped), so with a bound of k its first sample may
be drawn once step n - 1 - k has been learned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from renio_pipeline.stages.outcomes import Collected


class Lookahead:
    """Usage: ``learned(step)`` after each step (at first: the step resumed at, or 0), ``await take(step + 1)`` for the next."""

    def __init__(self, collect: Callable[[int], Awaitable[Collected]], *, last: int, bound: int) -> None:
        """``collect`` a step's samples; ``last`` is the run's last step, ``bound`` the staleness bound in versions."""
        self._collect, self._last, self._bound = collect, last, bound
        self._tasks: dict[int, asyncio.Task[Collected]] = {}
        self._next: int | None = None

    def learned(self, step: int) -> None:
        """The trainers have done ``step``: start to collect every step that the bound now allows."""
        start = step + 1 if self._next is None else self._next
        for number in range(start, min(step + 1 + self._bound, self._last) + 1):
            self._tasks[number] = asyncio.create_task(self._run(number))
            self._next = number + 1

    async def take(self, step: int) -> Collected:
        """The samples of a step, when they are complete."""
        return await self._tasks.pop(step)

    async def cancel(self) -> None:
        """Drop everything that is being collected."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, step: int) -> Collected:
        return await self._collect(step)
