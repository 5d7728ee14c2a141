"""The stage that computes the student's losses without training: one worker on the trainer's resources."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from actors.cluster.placement import actor_options, start_in_group
from actors.errors import plain_reason
from actors.pools.jobs import Service
from actors.pools.supervisor import Workers
from actors.pools.waiting import answer
from actors.pools.worker import CONTROL, Kind, Lease, Worker, is_loss
from actors.trainer.forward_only import ForwardOnly
from renio_pipeline.models import info
from renio_pipeline.models.batching import plan
from renio_pipeline.objectives import trained_objective
from renio_pipeline.probe.responses import Forward, train_sample
from renio_pipeline.types import ScoredRollout


class ForwardStage:
    """Usage: ``workers.open()``, ``await workers.settled()``, ``await forward(scored)``, at the end ``workers.close()``."""

    def __init__(self, service: Service, vocab_size: int) -> None:
        self._config, self._vocab_size = service.config, vocab_size
        config = service.config
        options = actor_options(config, "trainer")
        actor = ray.remote(concurrency_groups={CONTROL: 1})(ForwardOnly)
        model, on_gpu = info.resolve(config.student), bool(config.pools.trainer.gpus)

        def start(slot: int) -> Lease:
            return start_in_group(actor, (model, config.trainer, on_gpu), options)

        self.workers = Workers(
            Kind(name="trainer", start=start, group=CONTROL),
            1,
            config.faults,
            slots=service.slots,
            note=service.note,
            on_lost=_nothing_to_send_again,
            on_change=lambda: None,
        )

    async def forward(self, scored: Sequence[ScoredRollout]) -> dict[int, Forward]:
        """See ``renio_pipeline.probe.run.ForwardPass``. A new worker is asked again if the one that was asked is lost."""
        config = self._config
        samples = [train_sample(s) for s in scored]
        micro_batches = plan(samples, 1, config.trainer.micro_batch_tokens, packing=config.trainer.packing)[0]
        seconds = config.faults.deadline_seconds + config.faults.teacher_seconds_per_token * sum(s.tokens for s in samples)
        arguments = micro_batches, trained_objective(config), config.temperature, self._vocab_size
        while True:
            await self.workers.until(lambda: bool(self.workers.serving))
            (worker,) = self.workers.serving
            asked = answer(worker.actor.losses.remote(*arguments), seconds, f"the losses of {len(samples)} responses")
            try:
                found = await worker.during(asked)
            except Exception as error:
                if not is_loss(error):
                    raise
                worker.lose(plain_reason(error))
                continue
            self.workers.progress(worker)
            return {i: Forward(logprobs=logprobs, losses=losses) for i, (logprobs, losses) in found.items()}


def _nothing_to_send_again(worker: Worker, reason: str) -> None:
    """``forward`` itself notices."""
