"""Plain distillation."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights
from renio_pipeline.weightings.token_factors import AFTER_PIVOTAL, dimmed_after_pivotal


class Uniform(Weighting):
    """Plain distillation: every weight is 1.

    What ``after_pivotal`` counts as a pivotal token is set by ``diagnostics.threshold``.
    """

    type: Literal["uniform"] = "uniform"
    after_pivotal: float = Field(1.0, ge=0, le=1, description=AFTER_PIVOTAL)

    @model_validator(mode="before")
    @classmethod
    def _moved_keys(cls, values: Any) -> Any:
        moved = [key for key in ("threshold", "clip") if isinstance(values, dict) and key in values]
        if moved:
            keys = " and ".join(f"diagnostics.{key}" for key in moved)
            raise ValueError(
                f"uniform has no {' and '.join(moved)}: what counts as a pivotal token is set by {keys}; move the value there"
            )
        return values

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        factors = dimmed_after_pivotal(batch, batch.pivotal.threshold, self.after_pivotal)
        return Weights(weights=np.ones(len(batch), np.float32), token_factors=factors)
