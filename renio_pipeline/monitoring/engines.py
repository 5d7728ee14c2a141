"""vLLM's own metrics of every replica, on one page."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any, Protocol

from renio_pipeline.stages.engine_text import EngineText, answered, together

KEPT_SECONDS = 5.0  # that a page is served again
PATIENCE_SECONDS = 5.0  # with engines that do not answer; a scrape has 10 by default


class Measured(Protocol):
    """A pool whose replicas may have engines."""

    async def engine_texts(self, run: str, seconds: float) -> Mapping[str, EngineText | None]:
        """By replica, those with an engine; None for one that did not answer in time."""
        ...


class Engines:
    """``serve`` runs beside the run, in its event loop. A page is fetched when somebody asks, on a thread of the asker's own:
    the loop only passes on the question and the answers, which the replicas have made text of already."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._pools: Mapping[str, Measured] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking = threading.Lock()  # several askers at a time get one answer
        self._page: tuple[float, bytes] | None = None  # when it was fetched

    async def serve(self, pools: Mapping[str, Any]) -> None:
        """For ever."""
        self._pools, self._loop = pools, asyncio.get_running_loop()
        try:
            await asyncio.Event().wait()
        finally:
            self._loop = None

    def page(self) -> bytes:
        """At most ``KEPT_SECONDS`` old; empty while the run does not serve, or does not answer."""
        with self._asking:
            if self._page is None or self._clock() - self._page[0] >= KEPT_SECONDS:
                text = self._ask()
                self._page = None if text is None else (self._clock(), text)
            return self._page[1] if self._page else b""

    def _ask(self) -> bytes | None:
        """None: there is nobody to ask. Empty: there was no answer, and who waited meanwhile need not ask again."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return None
        asked = asyncio.run_coroutine_threadsafe(self._fetch(), loop)
        try:
            found = asked.result(PATIENCE_SECONDS + 1)
        except (TimeoutError, CancelledError):  # the loop is busy, or has just ended
            asked.cancel()
            return b""
        ups = {place: text is not None for place, text in found.items()}
        return (answered(self._run, ups) + together(filter(None, found.values()))).encode()

    async def _fetch(self) -> dict[tuple[str, str], EngineText | None]:
        names = list(self._pools)
        texts = await asyncio.gather(*(self._pools[n].engine_texts(self._run, PATIENCE_SECONDS) for n in names))
        return {(pool, replica): t for pool, found in zip(names, texts, strict=True) for replica, t in found.items()}
