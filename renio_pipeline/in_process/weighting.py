"""The weighting stage without its actor."""

from __future__ import annotations

import numpy as np

from renio_pipeline.config.schema import Renio, Uniform
from renio_pipeline.weightings.weigher import Weighed, Weigher


class InProcessWeighting:
    def __init__(self, weighting: Renio | Uniform) -> None:
        self._weigher = Weigher(weighting)

    async def weigh(self, student: list[np.ndarray], teacher: list[np.ndarray]) -> Weighed:
        return self._weigher.weigh(student, teacher)

    async def running_mean(self) -> float | None:
        return self._weigher.running_mean()

    async def restore(self, running_mean: float | None) -> None:
        self._weigher.restore(running_mean)

    def status(self) -> dict[str, int]:
        return {"target": 1, "serving": 1, "restarts": 0}
