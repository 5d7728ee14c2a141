"""Intervals of proportions: of independent trials, and of trials that come in clusters."""

from __future__ import annotations

import math

import numpy as np

from renio_pipeline.evaluation.bootstrap import Estimate

Z_95 = 1.959964


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (E. B. Wilson, JASA 22, 1927)."""
    p, z2 = successes / trials, Z_95**2
    centre = p + z2 / (2 * trials)
    spread = Z_95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    low, high = (centre - spread) / (1 + z2 / trials), (centre + spread) / (1 + z2 / trials)
    return max(0.0, low), min(1.0, high)  # rounding can leave -4e-18 where nothing succeeded


def clustered(successes: np.ndarray, trials: np.ndarray) -> Estimate | None:
    """The share of successes where the trials of one cluster are alike, as several responses to one problem are.

    Wilson's interval with as many independent trials as the spread between clusters leaves (N. Dean and M. Pagano, Journal of
    Survey Statistics and Methodology 3, 2015). Where all trials succeed or none does, nothing is known about the spread, and
    each cluster counts as one trial.

    Args:
        successes, trials: [C], of each cluster. Clusters without trials do not count.

    Returns:
        The share with its 95 % interval; None without trials.
    """
    s, t = successes[trials > 0].astype(np.float64), trials[trials > 0].astype(np.float64)
    clusters, total = len(t), float(t.sum())
    if not clusters:
        return None
    p = float(s.sum()) / total
    independent = float(clusters)
    if clusters > 1 and 0 < p < 1:
        variance = clusters / (clusters - 1) * float(((s - p * t) ** 2).sum()) / total**2
        independent = min(total, p * (1 - p) / variance) if variance > 0 else total
    low, high = wilson(p * independent, independent)
    return Estimate(value=p, low=min(low, p), high=max(high, p))  # rounding can leave 1 − 1e-16 where everything succeeded
