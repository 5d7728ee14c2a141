"""Wilson's interval of a proportion, which the weightings and the evaluation both need."""

from __future__ import annotations

import math

Z_95 = 1.959964


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (E. B. Wilson, JASA 22, 1927). Raises ZeroDivisionError without trials."""
    p, z2 = successes / trials, Z_95**2
    centre = p + z2 / (2 * trials)
    spread = Z_95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    low, high = (centre - spread) / (1 + z2 / trials), (centre + spread) / (1 + z2 / trials)
    return max(0.0, low), min(1.0, high)  # rounding can leave -4e-18 where nothing succeeded
