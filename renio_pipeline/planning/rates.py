"""How fast each stage is: of one replica, in tokens and seconds, wherever that is known from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class GeneratorRate:
    """Continuous batching: all responses of a replica advance together, and the more there are, the slower each.

    ``tokens_per_second``: of the replica as a whole, by how many responses it writes at a time. In between, a token takes what
    lies between; with fewer than the first, as long as with these; with more than the last, the whole becomes no faster.
    """

    slots: int  # the most at a time
    tokens_per_second: Mapping[int, float]

    def __post_init__(self) -> None:
        if self.slots < 1 or not self.tokens_per_second:
            raise ValueError("a generator has at least one slot, and a rate for at least one number of responses")
        if any(n < 1 or not rate > 0 or math.isinf(rate) for n, rate in self.tokens_per_second.items()):
            raise ValueError(f"rates are positive, for one response or more at a time, not {dict(self.tokens_per_second)}")

    @cached_property
    def token_seconds(self) -> list[float]:
        """Of one response's token, by how many (0 to ``slots``) are written at a time; the first entry says nothing."""
        counts = sorted(self.tokens_per_second)
        seconds = [n / self.tokens_per_second[n] for n in counts]
        inside = np.interp(np.arange(self.slots + 1), counts, seconds)
        beyond = np.arange(self.slots + 1) * (seconds[-1] / counts[-1])
        return [float(s) for s in np.where(np.arange(self.slots + 1) > counts[-1], beyond, inside)]

    @cached_property
    def best(self) -> float:
        """Tokens a second, at whatever number of responses is best."""
        return max(n / s for n, s in enumerate(self.token_seconds) if n)


@dataclass(frozen=True)
class TeacherRate:
    """A batch at a time, of whatever waits."""

    tokens_per_second: float
    max_batch_tokens: float  # of prompts and responses
    batch_seconds: float = 0.0  # of any batch, beside its tokens

    def seconds(self, tokens: float) -> float:
        """Of a batch."""
        return self.batch_seconds + tokens / self.tokens_per_second


@dataclass(frozen=True)
class TrainerRate:
    """Ranks share a step's tokens, and then exchange gradients in a ring."""

    tokens_per_second: float  # of one rank, forward and backward
    step_seconds: float = 0.0  # of any step: the optimizer's part, for one
    exchange_bytes: float = 0.0  # of gradients (and of weights, where they are partitioned)
    link: tuple[float, float] = (math.inf, math.inf)  # bytes a second of a rank: within a node, and between nodes
    gpus_per_node: int = 8

    def seconds(self, tokens: float, longest: float, ranks: int) -> float:
        """Of a step of so many tokens, the longest sample's among them: that one is not shared out."""
        ring = 2 * (ranks - 1) / ranks * self.exchange_bytes / self.link[ranks > self.gpus_per_node]
        return self.step_seconds + max(tokens / ranks, longest) / self.tokens_per_second + ring


@dataclass(frozen=True, kw_only=True)
class Rates:
    generator: GeneratorRate
    teacher: TeacherRate
    trainer: TrainerRate
    sync_seconds: float = 0.0  # of a weight sync, without the wait for responses under way
    weigh_seconds: float = 0.0
    turn_seconds: float = 0.0  # colocated: handing the GPUs to the ranks and back
    between_seconds: float = 0.0  # of the driver, from one step to the next
