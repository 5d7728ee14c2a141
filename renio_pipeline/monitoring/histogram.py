"""A histogram that accepts whole arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client.utils import floatToGoString


class Histogram:
    """Counts per bucket and the sum of all values. prometheus-client's histogram takes one value per call, and a step has
    millions of tokens.

    Filled by one thread; any other thread may read at the same time.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        """``bounds``: the upper ends of the buckets, inclusive, in ascending order."""
        self._bounds = np.array(sorted(set(bounds)), np.float64)
        self._state = (
            np.zeros(len(self._bounds) + 1, np.int64),
            0.0,
        )  # replaced together, so that a reader sees a consistent pair

    def observe(self, values: Sequence[float] | np.ndarray) -> None:
        """Add values [N]. Values that are not finite are left out, as one of them would spoil the sum for good."""
        found = np.asarray(values, np.float64).ravel()
        found = found[np.isfinite(found)]
        counts, total = self._state
        more = np.bincount(np.searchsorted(self._bounds, found, side="left"), minlength=len(counts))
        self._state = (counts + more, total + float(found.sum()))

    def __bool__(self) -> bool:
        """Whether any value was added."""
        return bool(self._state[0].any())

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """The cumulative counts by bucket end, as Prometheus writes them, and the sum of all values."""
        counts, total = self._state
        ends = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(ends, map(float, counts.cumsum()), strict=True)), total


def doubling(first: float, last: float) -> list[float]:
    """Bounds from ``first``, each twice the previous one, up to the first that reaches ``last``.

    >>> doubling(1, 5)
    [1, 2, 4, 8]
    """
    bounds = [first]
    while bounds[-1] < last:
        bounds.append(2 * bounds[-1])
    return bounds
