"""The area under the ROC curve. In NumPy, because the driver computes it at every step and must not import torch."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, positives: np.ndarray) -> float | None:
    """The probability that a positive outscores a negative, ties counting half: U / (n₊ n₋) of Mann and Whitney, 1947.

    Args:
        scores: [N], any unit.
        positives: [N] bool.

    Returns:
        A share in [0, 1]; None if a class is empty.

    Raises:
        ValueError: the shapes differ, or a score is NaN, which has no rank.
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
