"""The weighting stage as the loop sees it. The weighting's state is kept here, so that the actor can be replaced."""

from __future__ import annotations

import ray

from actors.cluster.placement import actor_options, start_in_group
from actors.errors import plain_reason
from actors.packed_messages import pack
from actors.pools.jobs import Service
from actors.pools.supervisor import Workers
from actors.pools.waiting import answer
from actors.pools.weigher import Weigher
from actors.pools.worker import CONTROL, Kind, Lease, Worker, is_loss
from renio_pipeline.config import RunConfig
from renio_pipeline.weightings import ScoredBatch, State, weighting_of
from renio_pipeline.weightings.step import Weighed


class WeightingStage:
    """``weigh`` is asked again of a new actor if the one that was asked is lost; the state takes a batch in once."""

    def __init__(self, config: RunConfig, service: Service, state: State = None) -> None:
        self._deadline, self._state = config.faults.deadline_seconds, state
        options = actor_options(config, "weighting")
        actor = ray.remote(concurrency_groups={CONTROL: 1})(Weigher)
        arguments = weighting_of(config), config.pivotal

        def start(slot: int) -> Lease:
            return start_in_group(actor, arguments, options)

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

    async def weigh(self, batch: ScoredBatch) -> Weighed:
        packed = pack(batch)
        while True:
            await self.workers.until(lambda: bool(self.workers.serving))
            (worker,) = self.workers.serving
            asked = answer(worker.actor.weigh.remote(packed, self._state), self._deadline, "weigh")
            try:
                weighed: Weighed = await worker.during(asked)
            except Exception as error:
                if not is_loss(error):
                    raise
                worker.lose(plain_reason(error))
                continue
            self._state = weighed.state
            self.workers.progress(worker)
            return weighed

    async def state(self) -> State:
        return self._state

    async def restore(self, state: State) -> None:
        """Go back to an earlier state of the weighting."""
        self._state = state

    def status(self) -> dict[str, int]:
        return {"target": 1, "serving": len(self.workers.serving), "restarts": self.workers.restarts}


def _nothing_to_send_again(worker: Worker, reason: str) -> None:
    """``weigh`` itself notices."""
