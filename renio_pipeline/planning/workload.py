"""The parts of a replay: the work, the replicas, a generator in virtual time, and the result."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from renio_pipeline.planning.rates import GeneratorRate


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of every step."""

    lengths: Callable[[int], Sequence[float]]  # response lengths in tokens, by step number from 1
    prompt_tokens: float = 0.0  # prompt tokens per sample that the trainer reads
    teacher_prompt_tokens: float = 0.0  # prompt tokens per sample that the teacher reads
    off_policy: float = 0.0  # share of the samples whose responses no generator writes
    max_staleness: int = 0
    in_flight: Literal["drain", "keep"] = "drain"

    def written(self, number: int) -> Sequence[float]:
        """The lengths that generators write for a step, in tokens."""
        tokens = self.lengths(number)
        return tokens[round(len(tokens) * self.off_policy) :]


@dataclass(frozen=True)
class Split:
    """The number of replicas of each stage; no teachers, where a run has none, and no generators, where nobody writes."""

    generators: int
    teachers: int
    ranks: int

    def __post_init__(self) -> None:
        if min(self.generators, self.teachers) < 0 or self.ranks < 1:
            raise ValueError(f"no pool has less than no replicas, and ranks are needed, got {self}")


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The result of a replay."""

    steps: tuple[float, ...]  # seconds of each measured step
    samples: float  # samples per step
    idle: dict[str, float]  # mean share of the time in which a pool's workers are idle
    slots_idle: float  # mean share of the generators' slots without a response
    parts: dict[str, float]  # mean seconds of each stage; they add up to the step only if stages do not overlap

    @property
    def step(self) -> float:
        """The mean seconds of a step."""
        return statistics.fmean(self.steps)

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.step


@dataclass
class BatchedEngine:
    """A generator whose responses all advance together, so that a single clock, in tokens, serves them all."""

    rate: GeneratorRate
    # Heap of responses in flight: (clock when it ends, order, step, tokens).
    writing: list[tuple[float, int, int, float]] = field(default_factory=list)
    clock: float = 0.0
    at: float = 0.0  # virtual time at which the clock was last advanced
    plan: int = 0  # number of the latest event: earlier ones are void
    held: bool = False
    busy: float = 0.0  # seconds
    slot_seconds: float = 0.0

    def advance(self, now: float) -> None:
        n = len(self.writing)
        if n and not self.held:
            self.clock += (now - self.at) / self.rate.token_seconds[n]
            self.busy += now - self.at
            self.slot_seconds += (now - self.at) * n
        self.at = now

    def next_end(self) -> float:
        return self.at + max(0.0, self.writing[0][0] - self.clock) * self.rate.token_seconds[len(self.writing)]
