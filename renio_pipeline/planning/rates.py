"""The speed of one replica of each stage, in tokens and seconds, from whatever source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class GeneratorRate:
    """Continuous batching: all responses of a replica advance together, and the more there are, the slower each one is.

    ``tokens_per_second``: the rate of the whole replica, by the number of concurrent responses. Between two numbers, the time
    per token is interpolated; below the first, it is constant; above the last, the rate of the replica is constant.
    """

    slots: int  # the maximum number of concurrent responses
    tokens_per_second: Mapping[int, float]

    def __post_init__(self) -> None:
        if self.slots < 1 or not self.tokens_per_second:
            raise ValueError("a generator needs at least one slot, and a rate for at least one number of responses")
        if any(n < 1 or not rate > 0 or math.isinf(rate) for n, rate in self.tokens_per_second.items()):
            raise ValueError(f"rates must be positive, for at least one response at a time, not {dict(self.tokens_per_second)}")

    @cached_property
    def token_seconds(self) -> list[float]:
        """Seconds per token of a response, by the number of concurrent responses (0 to ``slots``); entry 0 is unused."""
        counts = sorted(self.tokens_per_second)
        seconds = [n / self.tokens_per_second[n] for n in counts]
        inside = np.interp(np.arange(self.slots + 1), counts, seconds)
        beyond = np.arange(self.slots + 1) * (seconds[-1] / counts[-1])
        return [float(s) for s in np.where(np.arange(self.slots + 1) > counts[-1], beyond, inside)]

    @cached_property
    def best(self) -> float:
        """Tokens per second at the best number of responses."""
        return max(n / s for n, s in enumerate(self.token_seconds) if n)


@dataclass(frozen=True)
class TeacherRate:
    """One batch at a time, from whatever is waiting."""

    tokens_per_second: float
    max_batch_tokens: float  # prompt and response tokens
    batch_seconds: float = 0.0  # overhead per batch

    def seconds(self, tokens: float) -> float:
        """The seconds of a batch of this many tokens."""
        return self.batch_seconds + tokens / self.tokens_per_second


AT_ONCE = TeacherRate(1e18, 1e18)  # of a run without a teacher


@dataclass(frozen=True)
class TrainerRate:
    """The ranks share a step's tokens, and then exchange gradients in a ring."""

    tokens_per_second: float  # one rank, forward and backward
    step_seconds: float = 0.0  # overhead per step, such as the optimizer's
    exchange_bytes: float = 0.0  # gradients (and weights, if they are partitioned)
    link: tuple[float, float] = (math.inf, math.inf)  # bytes/s of a rank: within a node, and between nodes
    gpus_per_node: int = 8

    def seconds(self, tokens: float, longest: float, ranks: int) -> float:
        """The seconds of a step with this many tokens, of which ``longest`` belong to one sample, which cannot be split."""
        ring = 2 * (ranks - 1) / ranks * self.exchange_bytes / self.link[ranks > self.gpus_per_node]
        return self.step_seconds + max(tokens / ranks, longest) / self.tokens_per_second + ring


@dataclass(frozen=True, kw_only=True)
class Rates:
    generator: GeneratorRate
    teacher: TeacherRate
    trainer: TrainerRate
    sync_seconds: float = 0.0  # a weight sync, without the wait for responses in flight
    weigh_seconds: float = 0.0
    turn_seconds: float = 0.0  # colocated: handing the GPUs to the ranks and back
    between_seconds: float = 0.0  # the driver, from one step to the next
