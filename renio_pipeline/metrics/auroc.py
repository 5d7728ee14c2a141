"""How well a score tells two classes apart. In NumPy: the driver, which asks it of every step, does without torch."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, positives: np.ndarray) -> float | None:
    """Probability that a positive outscores a negative, ties counting half (Mann-Whitney); None if a class is empty.

    scores [N], positives [N] bool. Raises ValueError for shapes that differ and for NaN, which has no rank.
    """
    if scores.ndim != 1 or scores.shape != positives.shape:
        raise ValueError(f"scores and positives must both be [N], got {scores.shape}, {positives.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"scores must not be NaN, got NaN at {np.flatnonzero(np.isnan(scores)).tolist()}")
    positives = positives.astype(bool)
    above, below = scores[positives], np.sort(scores[~positives])
    if not len(above) or not len(below):
        return None
    beaten, beaten_or_tied = (int(np.searchsorted(below, above, side=side).sum()) for side in ("left", "right"))
    return (beaten + beaten_or_tied) / (2 * len(above) * len(below))
