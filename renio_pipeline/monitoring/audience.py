"""Whether somebody scrapes the run regularly, who should then also get the final figures."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from renio_pipeline.monitoring.endpoint import App

LOOK_SECONDS = 0.05
FIRST_GAP_SECONDS = 15.0  # the interval that is assumed after a single scrape
PATIENCE = 1.5  # intervals to wait: scrapes are not punctual
LONGEST_SECONDS = 60.0  # the longest wait: the ended run still holds its GPUs


class Audience:
    """Waits for one more scrape: a Prometheus that scrapes every 15 s would miss the last steps, or that the run failed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: deque[float] = deque(maxlen=5)  # the times of the last scrapes; written only by the scrapers' threads
        self._count = 0

    def page(self, page: App) -> App:
        """Wrap ``page`` so that its requests are recorded."""

        def noticed(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            body = list(page(environ, start))
            self._asked.append(self._clock())
            self._count += 1
            return body

        return noticed

    async def served(self) -> None:
        """Return once there was another scrape, or it is overdue; at once if nobody scrapes."""
        before, due = self._count, self._due()
        while self._count == before and self._clock() < due:
            await asyncio.sleep(LOOK_SECONDS)

    def _due(self) -> float:
        asked = list(self._asked)
        if not asked:
            return self._clock()
        gap = max((b - a for a, b in pairwise(asked)), default=FIRST_GAP_SECONDS)
        return asked[-1] + min(PATIENCE * gap, LONGEST_SECONDS)
