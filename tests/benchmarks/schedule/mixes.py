"""Steps whose stages have more and less to do."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.schedule.load import Load

BOUND = 1.10  # of the step's time over its slowest stage's
WIDE_BOUND = 1.05  # the same where there are 64 generators, and weights change beneath what is under way


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A step's stages, in seconds of work of a whole pool."""

    name: str
    generate: float
    score: float
    train: float
    sync: float = 0.05
    generators: int = 2
    teachers: int = 2
    slots: int = 8
    batch_size: int = 64

    @property
    def slowest(self) -> float:
        return max(self.generate, self.score, self.train)

    @property
    def load(self) -> Load:
        each = self.generate * self.generators * self.slots / self.batch_size
        return Load(
            slots=self.slots,
            sample_seconds=each,
            score_seconds=self.score * self.teachers / self.batch_size,
            train_seconds=self.train,
            sync_seconds=self.sync,
        )

    @property
    def bound(self) -> float:
        return WIDE_BOUND if self.generators > 16 else BOUND

    def alone(self) -> float:
        """Seconds of the slowest stage where nothing else is done: at its end, generators have slots without a sample."""
        load, size = self.load, self.batch_size
        steps = ([load.seconds(i) for i in range(first, first + size)] for first in range(0, 8 * size, size))
        generate = statistics.fmean(makespan(step, self.generators * self.slots) for step in steps)
        return max(generate, self.score, self.train)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Until the last one ends, each begun in its turn as soon as a slot is free."""
    ends = [0.0] * slots
    for s in seconds:
        heapq.heapreplace(ends, ends[0] + s)
    return max(ends)


MIXES = (
    Mix(name="generation", generate=2.0, score=1.0, train=0.8),
    Mix(name="scoring", generate=1.0, score=2.0, train=0.8),
    Mix(name="training", generate=1.2, score=0.8, train=2.0),
)
# 170 samples a second are 2.7 for each generator: responses of about 1500 tokens at 4000 tokens a second.
WIDE = tuple(
    Mix(name=name, generate=generate, score=score, train=train, generators=64, teachers=16, batch_size=2048)
    for name, generate, score, train in (
        ("generation", 12.0, 6.0, 4.8),
        ("scoring", 6.0, 12.0, 4.8),
        ("training", 7.2, 4.8, 12.0),
    )
)
