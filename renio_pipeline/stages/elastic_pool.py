"""A pool as seen by commands, the autoscaler and the status."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from renio_pipeline.stages.engine_text import EngineText


class ElasticPool(Protocol):
    """A pool whose size may change during the run."""

    @property
    def size(self) -> int:
        """Workers that serve."""
        ...

    def status(self) -> dict[str, int]:
        """``target``, ``serving``, ``starting``, ``waiting`` (for resources), ``queue``, ``in_flight``, ``restarts``."""
        ...

    def resize(self, size: int) -> None: ...

    async def busy_seconds(self) -> dict[str, float]:
        """The seconds of work so far, by worker."""
        ...

    def paused_dispatch(self, *, drain: bool) -> AbstractAsyncContextManager[None]:
        """No work is handed out meanwhile; with ``drain``, begins when none is in flight."""
        ...

    async def engine_texts(self, run: str, seconds: float) -> Mapping[str, EngineText | None]:
        """See ``renio_pipeline.monitoring.engines.Measured``."""
        ...

    async def cancel_all(self) -> None:
        """Forget all work, queued and in flight."""
        ...
