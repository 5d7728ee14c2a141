"""The trainer ranks of one group, called together."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from actors.cluster.placement import is_reserved
from actors.cluster.processes import end_actor
from actors.packed_messages import PackedList
from actors.pools.worker import CONTROL
from actors.trainer.messages import RankReport, Restore, WriteState
from actors.weight_sync.sender import SyncReceipt
from renio_pipeline.config import RunConfig
from renio_pipeline.models.batching import plan
from renio_pipeline.objectives import trained_objective
from renio_pipeline.run_dir.checkpointing import CheckpointError
from renio_pipeline.stages.outcomes import over_passes
from renio_pipeline.types import TrainBatch, TrainReport, Version


class TrainerGroup:
    """Calls all ranks of a group. Methods without another comment run the method of the same name on every ``TrainerRank``."""

    def __init__(
        self,
        ranks: Sequence[Any],
        config: RunConfig,
        vocab_size: int,
        ledger: str | None,
        restore: Restore | None = None,
        placement: Any = None,
        owns_placement: bool = True,
    ) -> None:
        """``placement``: the placement group whose bundle i holds rank i. An owned one is removed with the ranks."""
        self.ranks = list(ranks)
        self.size = len(self.ranks)
        self._config, self._vocab_size, self._ledger, self._restore = config, vocab_size, ledger, restore
        self._placement, self._owns_placement = placement, owns_placement

    async def ping(self) -> list[int]:
        """The ranks' process ids. They answer concurrently with their work, even while a collective hangs."""
        return list(await asyncio.gather(*(r.ping.options(concurrency_group=CONTROL).remote() for r in self.ranks)))

    def end(self, pids: Sequence[int] = ()) -> None:
        """Kill every rank. ``pids``: their process ids, if known."""
        import ray

        for i, (rank, pid) in enumerate(zip_longest(self.ranks, pids, fillvalue=0)):
            end_actor(rank, pid, self._placement, i)
        if self._placement is not None and self._owns_placement:
            ray.util.remove_placement_group(self._placement)

    def placed(self) -> bool:
        """Whether the ranks' resources have been reserved."""
        return self._placement is None or is_reserved(self._placement)

    async def setup(self) -> None:
        """Load the model, or the checkpoint to resume from, on every rank."""
        universal = self._restore.universal_folder if self._restore and self._restore.universal else None
        if universal:
            await self.ranks[0].make_universal.remote()
        address, port = await self.ranks[0].address.remote()
        await self._all("setup", address, port)
        if universal:
            shutil.rmtree(universal, ignore_errors=True)

    async def connect(self, generators: Sequence[Any], workers: Sequence[int] | None = None) -> None:
        """Set the generators that receive weights. ``workers``: the engine workers of each (None: ask the generators)."""
        workers = await _engines(generators) if workers is None else workers
        address, port = await self.ranks[0].address.remote()
        config = self._config
        await self._all("connect", list(generators), list(workers), config.generator.dtype, config.sync.backend, address, port)

    async def connect_teacher(self, teachers: Sequence[Any], workers: Sequence[int] | None = None) -> None:
        """Set the teachers that follow the student. ``workers`` as for ``connect``."""
        workers = await _engines(teachers) if workers is None else workers
        await self._all("connect_teacher", list(teachers), list(workers))

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]:
        found = await self._each("logprobs", self._plan(batch), self._config.temperature, self._vocab_size)
        return {sample_id: values for rank in found for sample_id, values in rank.items()}

    async def train(self, batch: TrainBatch) -> TrainReport:
        """As many optimizer steps on the batch as the method makes. Ledgers are written after the last one."""
        planned, passes = self._plan(batch), self._config.passes
        return over_passes([await self._pass(planned, batch, last=n == passes - 1) for n in range(passes)])

    async def _pass(self, planned: list[list[list[Any]]], batch: TrainBatch, *, last: bool) -> TrainReport:
        reports: list[RankReport] = await self._each(
            "forward_backward",
            planned,
            step=batch.step,
            objective=trained_objective(self._config),
            batch_size=len(batch.samples),
            batch_tokens=batch.response_tokens,
            temperature=self._config.temperature,
            vocab_size=self._vocab_size,
            diagnostics=self._config.diagnostics,
        )
        updates = await self._all("optimizer_step", batch.step, self._ledger if last else None)
        total = sum(reports, RankReport())
        return TrainReport(
            loss=total.loss,
            divergence=total.divergence / len(batch.samples),
            loss_after_pivotal=total.after_pivotal / total.magnitude if total.magnitude else None,
            tokens=total.tokens,
            padding=total.padding,
            mismatch_mean=total.mismatch_mean,
            mismatch_max=total.mismatch_max,
            agreement=total.agreement.metrics,
            grad_norm=updates[0]["grad_norm"],
            lr=updates[0]["lr"],
            busy_seconds=[r.busy_seconds + u["busy_seconds"] for r, u in zip(reports, updates, strict=True)],
            measured={name: value / max(1, batch.response_tokens) for name, value in total.measured.items()},
            shares=[[sample.sample_id for micro_batch in rank for sample in micro_batch] for rank in planned],
        )

    async def publish(self, version: Version) -> SyncReceipt:
        """Send the weights to the connected generators."""
        receipts: list[SyncReceipt] = await self._all("publish", version)
        return receipts[0]

    async def publish_teacher(self, version: Version) -> SyncReceipt:
        """Send the weights, or their moving average, to the connected teachers."""
        receipts: list[SyncReceipt] = await self._all("publish_teacher", version)
        return receipts[0]

    async def offload(self) -> None:
        """See ``TrainerRank.offload``."""
        await self._all("offload")

    async def onload(self) -> None:
        await self._all("onload")

    async def save(self, folder: str) -> None:
        """Copy every rank's state to host memory and start writing it to ``folder``."""
        await self._all("save", folder)

    async def written(self) -> None:
        """Wait until all ranks have written their files, while training continues. Raises CheckpointError if one failed."""
        pause = 0.05
        states = await self._write_states()
        while not all(state.done for state in states):
            await asyncio.sleep(pause)
            pause = min(1.0, 2 * pause)
            states = await self._write_states()
        failures = [f"trainer rank {rank}: {state.failure}" for rank, state in enumerate(states) if state.failure]
        if failures:
            raise CheckpointError("; ".join(failures))

    async def _write_states(self) -> list[WriteState]:
        """Asked in the control group: ranks answer during a step, and even while a collective hangs."""
        return list(await asyncio.gather(*(r.written.options(concurrency_group=CONTROL).remote() for r in self.ranks)))

    def _plan(self, batch: TrainBatch) -> list[list[list[Any]]]:
        trainer = self._config.trainer
        return plan(batch.samples, self.size, trainer.micro_batch_tokens, packing=trainer.packing)

    async def _all(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        return list(await asyncio.gather(*(getattr(r, method).remote(*args, **kwargs) for r in self.ranks)))

    async def _each(self, method: str, shares: Sequence[Any], *args: Any, **kwargs: Any) -> list[Any]:
        calls = (
            getattr(r, method).remote(PackedList(share), *args, **kwargs) for r, share in zip(self.ranks, shares, strict=True)
        )
        return list(await asyncio.gather(*calls))


async def _engines(replicas: Sequence[Any]) -> list[int]:
    return [ready.receivers for ready in await asyncio.gather(*(r.ready.remote() for r in replicas))]
