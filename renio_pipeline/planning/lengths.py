"""The distribution of response lengths, and the lengths of a step's responses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SPREAD = 0.5  # sigma of log-normal lengths, if nothing is known: the longest of 32 is then 2.6 times the mean
GRID = 2048  # quantiles that represent a distribution
_MIDDLES = (np.arange(GRID) + 0.5) / GRID


@dataclass(frozen=True)
class Lengths:
    """A distribution of response lengths, as evenly spaced quantiles."""

    quantiles: tuple[float, ...]
    source: str  # where it comes from

    @classmethod
    def of(cls, tokens: Sequence[float], source: str) -> Lengths:
        """The distribution of observed lengths, in tokens."""
        return cls(tuple(float(t) for t in np.quantile(tokens, _MIDDLES, method="inverted_cdf")), source)

    @classmethod
    def log_normal(cls, mean: float, longest: float, source: str, spread: float = SPREAD) -> Lengths:
        """Log-normal lengths, truncated at ``longest``, with this mean after truncation.

        Args:
            mean, longest: in tokens.
            spread: sigma of the logarithm.

        Raises:
            ValueError: the mean is above the longest, or not positive.
        """
        if not 0 < mean <= longest:
            raise ValueError(f"a mean length of {mean:g} tokens is not between 0 and the longest, {longest:g}")
        if mean > 0.999 * longest:
            return cls((float(longest),) * GRID, source)
        normal = statistics.NormalDist()
        shape = np.exp(spread * np.array([normal.inv_cdf((i + 0.5) / GRID) for i in range(GRID)]))
        low, high = 0.0, longest / float(shape[0])
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(middle * shape, longest).mean() < mean else (low, middle)
        return cls(tuple(float(t) for t in np.minimum(high * shape, longest)), source)

    @cached_property
    def mean(self) -> float:
        return float(np.mean(self.quantiles))

    @property
    def longest(self) -> float:
        return self.quantiles[-1]

    @cached_property
    def under_way(self) -> float:
        """The tokens of a response in flight when many begin together: the larger of the mean, and of the mean in a steady
        stream at a random moment (where long responses are more frequent)."""
        values = np.array(self.quantiles)
        return max(self.mean, float((values**2).mean() / (2 * values.mean())))

    def step(self, samples: int, number: int) -> list[float]:
        """The lengths of a step's samples: evenly spaced over the distribution, in an order that depends on the step."""
        places = ((np.arange(samples) + 0.5) / samples * len(self.quantiles)).astype(int)
        return [self.quantiles[i] for i in np.random.default_rng(number).permutation(places)]
