"""The jobs that a pool's workers do: one sample, or one text, each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.pools.result_queue import ResultQueue
from renio_pipeline.config import RunConfig
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.faults import Slots
from renio_pipeline.types import Prompt


@dataclass(kw_only=True)
class Service:
    """What all pools of a run share."""

    config: RunConfig
    quarantine: QuarantineLog
    note: Callable[[str], None] = lambda text: None
    slots: Slots = field(default_factory=Slots)


class Quarantined:
    """Takes the place of a result: the sample is quarantined."""


@dataclass(eq=False, kw_only=True)
class Job:
    """Work that a caller waits for. ``sample_id`` tells it apart from all others of its pool."""

    results: ResultQueue  # receives a result, a Quarantined, or an exception
    wanted: bool = True  # False: nobody waits for it any more
    sent: float = 0.0  # when it was sent to a worker, on the clock of ``renio_pipeline.types.Times``


@dataclass(eq=False, kw_only=True)
class SampleJob(Job):
    """Work on one sample of a step."""

    prompt: Prompt

    @property
    def sample_id(self) -> int:
        return self.prompt.sample_id


def take_for(
    queue: list[Any], fits: Callable[[Any], bool], most: int, *, run_alone: Callable[[int], bool], idle: bool
) -> tuple[list[Any], bool]:
    """Take up to ``most`` jobs from the front of a queue, in order, and stop at the first that ``fits`` refuses.

    A job for whose sample id ``run_alone`` is true is taken only for an ``idle`` worker, and then alone.

    Returns:
        The jobs, and whether they are one job that runs alone.
    """
    taken: list[Any] = []
    i = 0
    while i < len(queue) and len(taken) < most:
        job = queue[i]
        if run_alone(job.sample_id):
            if idle and not taken:
                return [queue.pop(i)], True
            i += 1
            continue
        if not fits(job):
            break
        taken.append(queue.pop(i))
    return taken, False
