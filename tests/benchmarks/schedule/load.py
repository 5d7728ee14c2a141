"""What engines that sleep are given, and what they did."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from renio_pipeline.types import FIRST_VERSION, Version

TOKENS = 100  # of a response, on average
BATCH_SAMPLES = 8  # that a teacher's engine computes in one step, on average
CYCLE = 32  # samples whose lengths are, together, always the same
SPREAD = 0.5  # sigma of the log-normal lengths: the longest of a cycle is 2.6 times the mean


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the engines do, in seconds."""

    slots: int = 8  # of a generator
    sample_seconds: float = 0.5  # of a response of mean length
    score_seconds: float = 0.03  # of such a response too
    train_seconds: float = 1.0  # of a step
    sync_seconds: float = 0.05

    def seconds(self, sample_id: int) -> float:
        """To write this response."""
        return self.sample_seconds * length_factor(sample_id)


def length_factor(sample_id: int) -> float:
    """A response's length over the mean one's: log-normal, with the same 32 values in each 32 ids, in an order of their own."""
    return _cycle(sample_id // CYCLE)[sample_id % CYCLE]


@lru_cache(1024)
def _cycle(number: int) -> list[float]:
    """The factors of a cycle's samples. Kept, since fakes that share the driver's process would take its time."""
    quantiles = (np.arange(CYCLE) + 0.5) / CYCLE
    lengths = np.exp(SPREAD * np.array([statistics.NormalDist().inv_cdf(q) for q in quantiles]))
    order = np.random.default_rng(number).permutation(CYCLE)
    found: list[float] = (lengths / lengths.mean())[order].tolist()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a fake did, and when: ``time.time()``, which is the same for every process of a machine."""

    id: int  # of the sample, or of the trained step
    start: float
    end: float
    first: Version = FIRST_VERSION  # the weights at the start
    last: Version = FIRST_VERSION  # and at the end
