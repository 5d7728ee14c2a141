"""The time of a step: when each stage worked, and what share of the step each pool did nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import numpy as np

from renio_pipeline.stages.protocols import Stages
from renio_pipeline.stages.turns import Turns
from renio_pipeline.types import Busy, Publication, Rollout, Times, TrainReport


class StepTimer:
    """Usage: ``with timer.span("train"): ...``. Times are those of ``time.perf_counter``, in seconds."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.spans: dict[str, Times] = {}  # name -> start and end
        self._first: float | None = None  # when the first response came
        self._last = self.began

    @property
    def seconds(self) -> dict[str, float]:
        """The length of each span, as the metric ``time/NAME``."""
        return {f"time/{name}": end - start for name, (start, end) in self.spans.items()}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """What happens within is the span ``name``, if it does not raise."""
        start = time.perf_counter()
        yield
        self.spans[name] = start, time.perf_counter()

    @asynccontextmanager
    async def turn(self, turns: Turns) -> AsyncIterator[None]:
        """``turns.training()``; the spans ``turn_over`` and ``turn_back`` are how long the GPUs take to change hands."""
        asked = time.perf_counter()
        async with turns.training():
            self.spans["turn_over"] = asked, time.perf_counter()
            yield
            done = time.perf_counter()
        self.spans["turn_back"] = done, time.perf_counter()

    async def responses(self, arriving: AsyncIterator[Rollout]) -> AsyncIterator[Rollout]:
        """Pass responses on, and note when they come."""
        async for response in arriving:
            if response.off_policy not in ("solution", "recorded"):  # it is there at once, and nobody wrote it
                self._last = time.perf_counter()
                self._first = self._last if self._first is None else self._first
            yield response

    def written(self) -> None:
        """The last response is there: the span of generation."""
        if self._first is not None:
            self.spans |= {"first_response": (self.began, self._first), "generate": (self.began, self._last)}

    def scored(self) -> None:
        """The last score is there: the spans of generation and of scoring, which overlap."""
        self.written()
        if self._first is not None:
            self.spans["score"] = self._first, time.perf_counter()


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A snapshot of how long each pool's workers have worked, taken where one step ends and the next begins."""

    at: float  # time.perf_counter
    busy: dict[str, Busy]  # by pool

    @classmethod
    async def now(cls, stages: Stages) -> Utilisation:
        pools = {"generator": stages.generators} | ({} if stages.teachers is None else {"teacher": stages.teachers})
        found = await asyncio.gather(*(pool.busy_seconds() for pool in pools.values()))
        return cls(time.perf_counter(), dict(zip(pools, found, strict=True)))


def idle_shares(
    before: Mapping[str, Busy], after: Mapping[str, Busy], report: TrainReport, publication: Publication, seconds: float
) -> dict[str, float]:
    """Share of a step of ``seconds`` in which each pool's workers did nothing: the mean over those that were there throughout.

    Returns the metrics ``idle/POOL``, each from 0 to 1; none of a pool that has no workers, as of a recorded teacher.
    """
    worked = {pool: _worked(before[pool], after[pool]) for pool in after if before[pool] or after[pool]}
    worked["trainer"] = float(np.mean(report.busy_seconds)) + publication.seconds
    return {f"idle/{pool}": _idle(busy, seconds) for pool, busy in worked.items()}


def teachers_idle(before: Busy, after: Busy, seconds: float) -> dict[str, float]:
    """The same by the pool of each of several teachers, whose workers are called TEACHER/REPLICA/PID; empty for one teacher."""
    found: dict[str, float] = {}
    for teacher in {worker.split("/")[0] for worker in after if worker.count("/") == 2}:
        own = {worker: busy for worker, busy in after.items() if worker.startswith(f"{teacher}/")}
        found[f"teacher.{teacher}"] = _idle(_worked(before, own), seconds)
    return found


def _idle(busy: float, seconds: float) -> float:
    return float(np.clip(1 - busy / seconds, 0, 1))


def _worked(before: Busy, after: Busy) -> float:
    both = before.keys() & after.keys()
    return float(np.mean([after[name] - before[name] for name in both])) if both else 0.0
