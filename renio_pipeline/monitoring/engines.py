"""vLLM's own metrics of every replica, on one page."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any, Protocol

from renio_pipeline.stages.engine_text import EngineText, answered, together

KEPT_SECONDS = 5.0  # how long a page is cached
PATIENCE_SECONDS = 5.0  # how long to wait for engines; a scrape times out after 10 by default


class Measured(Protocol):
    """A pool whose replicas may have engines."""

    async def engine_texts(self, run: str, seconds: float) -> Mapping[str, EngineText | None]:
        """The metrics of each replica with an engine; None for a replica that did not answer in time."""
        ...


class Engines:
    """``serve`` runs concurrently with the run, in its event loop. A page is fetched on request, on the request's own thread.

    The loop only forwards the request and the answers, which the replicas have already rendered as text.
    """

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._pools: Mapping[str, Measured] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking = threading.Lock()  # concurrent requests share one answer
        self._page: tuple[float, bytes] | None = None  # the time of the fetch, and the page

    async def serve(self, pools: Mapping[str, Any]) -> None:
        """For ever."""
        self._pools, self._loop = pools, asyncio.get_running_loop()
        try:
            await asyncio.Event().wait()
        finally:
            self._loop = None

    def page(self) -> bytes:
        """The page, at most ``KEPT_SECONDS`` old; empty while the run is not serving or does not answer."""
        with self._asking:
            if self._page is None or self._clock() - self._page[0] >= KEPT_SECONDS:
                text = self._ask()
                self._page = None if text is None else (self._clock(), text)
            return self._page[1] if self._page else b""

    def _ask(self) -> bytes | None:
        """The page from the run. None: the run is not serving. Empty: no answer in time, which waiting requests share."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return None
        asked = asyncio.run_coroutine_threadsafe(self._fetch(), loop)
        try:
            found = asked.result(PATIENCE_SECONDS + 1)
        except (TimeoutError, CancelledError):  # the event loop is busy, or has just ended
            asked.cancel()
            return b""
        ups = {place: text is not None for place, text in found.items()}
        return (answered(self._run, ups) + together(filter(None, found.values()))).encode()

    async def _fetch(self) -> dict[tuple[str, str], EngineText | None]:
        names = list(self._pools)
        texts = await asyncio.gather(*(self._pools[n].engine_texts(self._run, PATIENCE_SECONDS) for n in names))
        return {(pool, replica): t for pool, found in zip(names, texts, strict=True) for replica, t in found.items()}
