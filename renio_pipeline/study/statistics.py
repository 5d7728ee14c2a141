"""Means over seeds, paired differences, and when a difference may be claimed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

LEVEL = 0.95
CLAIM_PAIRS = 10  # with fewer paired seeds, no difference is claimed

Reading = Literal["better", "worse", "no claim"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds with Student's interval at LEVEL. With one seed there is no interval: its ends are NaN."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def reading(self) -> Reading:
        """The direction of a paired difference, if there are enough seeds and the interval excludes 0."""
        if self.n < CLAIM_PAIRS or not (self.low > 0 or self.high < 0):
            return "no claim"
        return "better" if self.low > 0 else "worse"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of at least one value with its interval. Raises ValueError without values."""
    n = len(values)
    if n == 0:
        raise ValueError("expected at least one value, got none")
    mean = float(np.mean(values))
    if n == 1:
        return Estimate(n=1, mean=mean, low=math.nan, high=math.nan)
    half = t_quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(n=n, mean=mean, low=mean - half, high=mean + half)


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """The paired difference ``one`` - ``other`` over the seeds that both have; None if there is none."""
    seeds = sorted(one.keys() & other.keys())
    return estimate([one[s] - other[s] for s in seeds]) if seeds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A least-squares line."""

    intercept: float
    slope: Estimate  # n: points; its interval has n - 2 degrees of freedom, and is undefined for two points

    def at(self, x: float) -> float:
        return self.intercept + self.slope.mean * x


def line(points: Sequence[tuple[float, float]]) -> Line | None:
    """The least-squares line through points (x, y); None unless two of them differ in x."""
    n = len(points)
    x, y = np.array(points, float).reshape(n, 2).T
    spread = float(((x - x.mean()) ** 2).sum()) if n else 0.0
    if not spread:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean()) - slope * float(x.mean())
    half = math.nan
    if n > 2:
        half = t_quantile(n - 2) * math.sqrt(float(((y - intercept - slope * x) ** 2).sum()) / (n - 2) / spread)
    return Line(intercept=intercept, slope=Estimate(n=n, mean=slope, low=slope - half, high=slope + half))


@lru_cache
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t: |t| with ``freedom`` degrees of freedom stays below it with probability ``level``.

    With x = tan(a) sqrt(freedom), the density is proportional to cos(a)^(freedom - 1), which is summed over a fine grid.
    """
    angles = np.linspace(0.0, math.pi / 2, 400_001)
    density = np.cos(angles) ** (freedom - 1)
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.tan(float(np.interp(level, share / share[-1], angles))) * math.sqrt(freedom)
