"""The weighting stage in this process, without its actor."""

from __future__ import annotations

from renio_pipeline.config import RunConfig
from renio_pipeline.weightings import ScoredBatch, State, weighting_of
from renio_pipeline.weightings.step import Weighed, weigh_step


class InProcessWeighting:
    def __init__(self, config: RunConfig, state: State = None) -> None:
        self._weighting, self._pivotal, self._state = weighting_of(config), config.pivotal, state

    async def weigh(self, batch: ScoredBatch) -> Weighed:
        weighed = weigh_step(self._weighting, self._pivotal, batch, self._state)
        self._state = weighed.state
        return weighed

    async def state(self) -> State:
        return self._state

    async def restore(self, state: State) -> None:
        self._state = state

    def status(self) -> dict[str, int]:
        return {"target": 1, "serving": 1, "restarts": 0}
