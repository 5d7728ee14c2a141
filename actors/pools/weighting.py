"""The weighting actor as the loop sees it. Its state is the driver's too, so that it can be replaced."""

from __future__ import annotations

import numpy as np
import ray

from actors.cluster.placement import actor_options, start_in_group
from actors.packed_messages import PackedList
from actors.pools.base import Service, is_loss
from actors.pools.supervisor import Workers
from actors.pools.worker import CONTROL, Kind, Lease, Worker, answer
from renio_pipeline.config import RunConfig
from renio_pipeline.weightings.weigher import Weighed, Weigher


class WeightingStage:
    """``weigh`` is asked again of a new actor if the one that was asked is lost; the normaliser takes a batch in once."""

    def __init__(self, config: RunConfig, service: Service, running_mean: float | None = None) -> None:
        self._config, self._running_mean = config, running_mean
        options = actor_options(config, "weighting")
        actor = ray.remote(concurrency_groups={CONTROL: 1})(Weigher)

        def start(slot: int) -> Lease:
            return start_in_group(actor, (config.weighting, self._running_mean), options)

        kind = Kind(name="weighting", start=start, group=CONTROL)
        self.workers = Workers(
            kind,
            1,
            config.faults,
            slots=service.slots,
            note=service.note,
            on_lost=_nothing_to_send_again,
            on_change=lambda: None,
        )

    async def weigh(self, student: list[np.ndarray], teacher: list[np.ndarray]) -> Weighed:
        while True:
            await self.workers.until(lambda: bool(self.workers.serving))
            (worker,) = self.workers.serving
            asked = answer(
                worker.actor.weigh.remote(PackedList(student), PackedList(teacher)),
                self._config.faults.deadline_seconds,
                "weigh",
            )
            try:
                weighed: Weighed = await worker.during(asked)
            except Exception as error:
                if not is_loss(error):
                    raise
                worker.lose(str(error))
                continue
            self._running_mean = weighed.running_mean
            self.workers.progress(worker)
            return weighed

    async def running_mean(self) -> float | None:
        return self._running_mean

    async def restore(self, running_mean: float | None) -> None:
        """Go back to an earlier state of the normaliser."""
        self._running_mean = running_mean
        for worker in self.workers.serving:
            try:
                await worker.during(answer(worker.actor.restore.remote(running_mean), 60, "restore"))
            except Exception as error:
                if not is_loss(error):
                    raise
                worker.lose(str(error))  # the next one starts with this state

    def status(self) -> dict[str, int]:
        return {"target": 1, "serving": len(self.workers.serving), "restarts": self.workers.restarts}


def _nothing_to_send_again(worker: Worker, reason: str) -> None:
    """``weigh`` itself notices."""
