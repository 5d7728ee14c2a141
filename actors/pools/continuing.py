"""The texts that a teacher's pool is asked to write: jobs of one continuation each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from actors.pools.jobs import Job
from actors.pools.worker import Worker
from renio_pipeline.config.schema import Faults
from renio_pipeline.types import Continuation, ContinuationRequest

TORCH_TEXTS = 32  # that a teacher without an engine writes in one call


@dataclass(eq=False, kw_only=True)
class Continuing(Job):
    step: ClassVar[int] = -1  # ahead of every response to score: whoever asks for a text usually scores after it
    sample_id: int  # negative, so that it is no sample's
    place: int  # among the continuations of its call
    request: ContinuationRequest  # for one continuation


@dataclass(frozen=True, slots=True)
class Text:
    """A result: the continuation at ``place``."""

    place: int
    continuation: Continuation


def texts_at_a_time(worker: Worker) -> int:
    """How many texts a worker writes at a time."""
    return worker.ready.limits.sequences if worker.ready.limits else TORCH_TEXTS


def seconds_for(jobs: Sequence[Continuing], worker: Worker, faults: Faults) -> float:
    """How long a worker may take for jobs that it is sent together."""
    rounds = -(-len(jobs) // texts_at_a_time(worker))
    return faults.deadline_seconds + faults.generator_seconds_per_token * max(j.request.max_tokens for j in jobs) * rounds
