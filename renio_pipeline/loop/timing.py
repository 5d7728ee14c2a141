"""Wall-clock marks of a step."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from renio_pipeline.types import Rollout


class Clock:
    """Wall-clock marks of a step."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    @property
    def marks(self) -> dict[str, float]:
        """In seconds of ``time.perf_counter``."""
        return dict(self._at)

    def mark(self, name: str) -> None:
        self._at[name] = time.perf_counter()

    def at(self, name: str) -> float:
        return self._at[name]

    def seconds(self, start: str, end: str) -> float:
        return self._at[end] - self._at[start]

    async def first_and_last(self, responses: AsyncIterator[Rollout]) -> AsyncIterator[Rollout]:
        """Pass responses on, and mark when the first and the last came."""
        async for response in responses:
            if "first" not in self._at:
                self.mark("first")
            self.mark("last")
            yield response

    def stages(self) -> dict[str, float]:
        """Whatever both ends were marked of."""
        ends = {
            "time/first_response": ("start", "first"),
            "time/generate": ("start", "last"),
            "time/score": ("first", "scored"),
            "time/weigh": ("begun", "weighed"),
            "time/train": ("weighed", "trained"),
            "time/sync": ("awake", "published"),
        }
        return {name: self.seconds(*marks) for name, marks in ends.items() if set(marks) <= self._at.keys()}
