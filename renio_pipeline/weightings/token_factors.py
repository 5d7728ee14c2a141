"""Token factors that several weightings share."""

from __future__ import annotations

import numpy as np

from renio_pipeline.weightings.base import ScoredBatch

AFTER_PIVOTAL = (
    "γ: factor on the loss of all tokens after a response's first pivotal one, which keeps 1; 1: as in the paper, 0: they are "
    "left out. The denominator stays the number of all response tokens."
)


def dimmed_after_pivotal(batch: ScoredBatch, threshold: float, factor: float) -> list[np.ndarray] | None:
    """The token factors [T_b] float32 of each sample: 1 up to and including its first pivotal token, ``factor`` after it.

    A response without a pivotal token keeps 1 everywhere. None where ``factor`` is 1, so that nothing is multiplied at all.

    Args:
        threshold: the log-ratio log p_S − log p_T in nats from which a token is pivotal.

    Raises:
        ValueError: a log-ratio is NaN.
    """
    if factor == 1:
        return None
    from renio_pipeline.weighting import pivotal_mask

    pivotal_BT = pivotal_mask(*batch.padded(), threshold=threshold).numpy()
    after_BT = np.cumsum(pivotal_BT, axis=1) - pivotal_BT > 0
    factors_BT = np.where(after_BT, np.float32(factor), np.float32(1))
    return [row[:length] for row, length in zip(factors_BT, batch.lengths, strict=True)]
