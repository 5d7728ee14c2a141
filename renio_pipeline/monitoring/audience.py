"""Who fetches the run's figures regularly, and so has to get the last ones too."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from renio_pipeline.monitoring.endpoint import App

LOOK_SECONDS = 0.05
FIRST_GAP_SECONDS = 15.0  # after a single scrape, when the next one may be expected
PATIENCE = 1.5  # of a gap: scrapes are not on the dot
LONGEST_SECONDS = 60.0  # a run that has ended holds its GPUs meanwhile


class Audience:
    """A Prometheus that asks every quarter of a minute would miss a short run's last steps, and why a run failed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: deque[float] = deque(maxlen=5)  # when; replaced by nobody but the askers' threads
        self._count = 0

    def page(self, page: App) -> App:
        """``page``, and who asks for it is noticed."""

        def noticed(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            body = list(page(environ, start))
            self._asked.append(self._clock())
            self._count += 1
            return body

        return noticed

    async def served(self) -> None:
        """Returns once somebody has asked again, or is late; at once where nobody asks."""
        before, due = self._count, self._due()
        while self._count == before and self._clock() < due:
            await asyncio.sleep(LOOK_SECONDS)

    def _due(self) -> float:
        asked = list(self._asked)
        if not asked:
            return self._clock()
        gap = max((b - a for a, b in pairwise(asked)), default=FIRST_GAP_SECONDS)
        return asked[-1] + min(PATIENCE * gap, LONGEST_SECONDS)
