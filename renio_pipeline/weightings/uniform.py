"""Plain distillation."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights


class Uniform(Weighting):
    """Plain distillation: every weight is 1."""

    type: Literal["uniform"] = "uniform"

    @model_validator(mode="before")
    @classmethod
    def _moved_keys(cls, values: Any) -> Any:
        moved = [key for key in ("threshold", "clip") if isinstance(values, dict) and key in values]
        if moved:
            keys = " and ".join(f"diagnostics.{key}" for key in moved)
            raise ValueError(
                f"uniform has no {' and '.join(moved)}: what metrics and reports count as a pivotal token is set by {keys}; "
                "move the value there"
            )
        return values

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        return Weights(weights=np.ones(len(batch), np.float32))
