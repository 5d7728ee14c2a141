"""The weighting actor. Apart from its stage, so that its process imports no more than it needs."""

from __future__ import annotations

import os

from actors.packed_messages import unpack
from renio_pipeline.config.schema import Pivotal
from renio_pipeline.stages.engine_limits import Ready
from renio_pipeline.weightings import State, Weighting
from renio_pipeline.weightings.step import Weighed, weigh_step


class Weigher:
    """It keeps nothing between two calls: the driver has the weighting's state."""

    def __init__(self, weighting: Weighting, pivotal: Pivotal) -> None:
        self._weighting, self._pivotal = weighting, pivotal

    def ready(self) -> Ready:
        """At once: it has no model."""
        return Ready(receivers=0)

    def ping(self) -> int:
        """This process's id. In a concurrency group of its own, so that it answers while a batch is being weighed."""
        return os.getpid()

    def weigh(self, batch: bytes, state: State) -> Weighed:
        """Weigh a packed ScoredBatch."""
        return weigh_step(self._weighting, self._pivotal, unpack(batch), state)
