"""Percentile bootstrap over problems (B. Efron, The Annals of Statistics 7, 1979): problems are resampled, not responses.

The responses to one problem are correlated, so they are not independent evidence; the choice of problems is what varies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_AT_ONCE = 2**22  # resampled problems in memory at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def resampled_means(columns: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """The mean of each column over problems drawn with replacement; the same draws serve all columns.

    Args:
        columns: [P, M], one row per problem, one column per quantity.

    Returns:
        [resamples, M] float64, in the units of the columns.
    """
    problems = len(columns)
    rng, share = np.random.default_rng(seed), np.full(problems, 1 / problems)
    at_once = max(1, _AT_ONCE // problems)
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([rng.multinomial(problems, share, size=size) @ columns / problems for size in sizes])


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The central 95 % of resampled values [R]: their 2.5 % and 97.5 % quantiles."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


def estimate(value: Any, resampled: np.ndarray) -> Estimate:
    low, high = interval(resampled)
    return Estimate(value=float(value), low=low, high=high)
