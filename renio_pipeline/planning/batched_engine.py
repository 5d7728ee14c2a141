"""A generator in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

from renio_pipeline.planning.rates import GeneratorRate


@dataclass
class BatchedEngine:
    """A generator. All its responses advance together, so one clock, in tokens, serves them all."""

    rate: GeneratorRate
    # A heap of (clock at its end, order, step, tokens).
    writing: list[tuple[float, int, int, float]] = field(default_factory=list)
    clock: float = 0.0
    at: float = 0.0  # when the clock was read last
    plan: int = 0  # number of the event that counts
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
