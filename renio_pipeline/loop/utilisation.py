"""What each pool did of a step's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import Busy, Publication, TrainReport


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a step begins: the moment that the one before it ended."""

    at: float
    busy: dict[str, Busy]  # by pool

    @classmethod
    async def now(cls, stages: Stages) -> Mark:
        generators, teachers = await asyncio.gather(stages.generators.busy_seconds(), stages.teachers.busy_seconds())
        return cls(time.perf_counter(), {"generator": generators, "teacher": teachers})


def idle_shares(
    before: Mapping[str, Busy], after: Mapping[str, Busy], report: TrainReport, publication: Publication, seconds: float
) -> dict[str, float]:
    """Share of the step in which each pool's workers did nothing, on average over those that were there all the time."""
    worked = {pool: _worked(before[pool], after[pool]) for pool in after}
    worked["trainer"] = float(np.mean(report.busy_seconds)) + publication.seconds
    return {f"idle/{pool}": _idle(busy, seconds) for pool, busy in worked.items()}


def teachers_idle(before: Busy, after: Busy, seconds: float) -> dict[str, float]:
    """As above, by the pool of each of several teachers, whose workers are called TEACHER/REPLICA/PID; else empty."""
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
