"""Token factors that leave out what the student is sure of."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights


class ConfidenceGate(Weighting):
    """Leaves out tokens that the student sampled with a probability above ``confidence``; every weight is 1."""

    type: Literal["confidence_gate"] = "confidence_gate"
    confidence: float = Field(
        0.99,
        gt=0,
        le=1,
        description="Tokens with p_S above this, at the distillation temperature, have the factor 0, others 1; 1: uniform.",
    )

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        bound = np.float32(math.log(self.confidence))
        factors = [(row <= bound).astype(np.float32) for row in batch.student_logprobs]
        return Weights(weights=np.ones(len(batch), np.float32), token_factors=factors if self.confidence < 1 else None)
