"""Intervals of proportions whose trials come in clusters."""

from __future__ import annotations

import numpy as np

from renio_pipeline.evaluation.bootstrap import Estimate
from renio_pipeline.intervals import wilson


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
