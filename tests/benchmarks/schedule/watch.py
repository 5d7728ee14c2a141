"""What is noted of a run, and nothing else."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from renio_pipeline.metrics.sink import Sink
from renio_pipeline.types import Evaluation

WARM_UP = 3  # steps left out: the pipeline fills; at the end as many as are collected ahead, for it empties


@dataclass
class Watch(Sink):
    """A sink that notes when each step ended, and how much CPU time the driver had taken by then."""

    last: int  # step that counts: the pools are full up to there
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if WARM_UP <= step <= self.last:
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())

    def steps(self) -> list[float]:
        """Seconds of each step that counts."""
        return [b - a for a, b in itertools.pairwise(self.wall)]

    def cpu_seconds(self) -> float:
        """The driver's, in those steps."""
        return self.cpu[-1] - self.cpu[0]


class Silent:
    """Nobody watches, but what is worth a word here is worth a look."""

    def note(self, text: str) -> None:
        if not text.startswith("checkpoint "):
            print(text)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        pass

    def evaluation(self, step: int, result: Evaluation) -> None:
        pass
