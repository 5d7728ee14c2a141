"""Percentile bootstrap over problems (B. Efron, The Annals of Statistics 7, 1979): problems are drawn again, not samples.

The samples of one problem are alike, so they are no independent evidence: what varies is which problems were asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_AT_ONCE = 2**22  # problems of resamples held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def resampled_means(columns: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Means of each column over problems that are drawn with replacement; one draw serves all columns.

    Args:
        columns: [P, M], a row a problem.

    Returns:
        [resamples, M] float64
    """
    problems = len(columns)
    rng, share = np.random.default_rng(seed), np.full(problems, 1 / problems)
    at_once = max(1, _AT_ONCE // problems)
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([rng.multinomial(problems, share, size=size) @ columns / problems for size in sizes])


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of [R] resampled values."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


def estimate(value: Any, resampled: np.ndarray) -> Estimate:
    low, high = interval(resampled)
    return Estimate(value=float(value), low=low, high=high)
