"""Token factors that fall as a response drifts away from the teacher (IW-OPD, arXiv 2606.22600)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat

from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights


class Iw(Weighting):
    """IW-OPD's token factors (arXiv 2606.22600): 1 + γ (1 − Σ_{i<t} |A_i| / Σ_i |A_i|), with A = log p_T − log p_S.

    They fall from 1 + γ at the first token towards 1, the faster, the earlier the two models differ. Every weight is 1.
    """

    type: Literal["iw"] = "iw"
    gamma: NonNegativeFloat = Field(0.5, description="γ: how much the first token counts above 1; 0: uniform.")

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        from renio_pipeline.weighting import log_ratio

        sizes_BT = log_ratio(*batch.padded()).abs().double().numpy()
        rows = (row[:length] for row, length in zip(sizes_BT, batch.lengths, strict=True))
        factors = [1 + self.gamma * (1 - _share_before(row)) for row in rows]
        return Weights(weights=np.ones(len(batch), np.float32), token_factors=factors if self.gamma else None)


def _share_before(sizes: np.ndarray) -> np.ndarray:
    """The share of Σ |A| that lies before each token. sizes [T] float64, |A| in nats; returns [T] in 0 to 1.

    Where the models do not differ at all, nothing lies before any token. An infinite |A| (a token that the teacher gives no
    probability) outweighs every finite one, and several share alike: the limit of ever larger finite values.
    """
    if np.isinf(sizes).any():
        sizes = np.isinf(sizes).astype(np.float64)
    total = sizes.sum()
    return (np.cumsum(sizes) - sizes) / (total if total > 0 else 1.0)
