"""The trainer ranks as one stage."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.rank_checkpoint import Restore, WriteState
from actors.training import CONTROL, RankReport
from renio_pipeline.batching import plan
from renio_pipeline.checkpointer import CheckpointError
from renio_pipeline.config import RunConfig
from renio_pipeline.pipeline import Publication, TrainReport
from renio_pipeline.types import TrainBatch, Version


class TrainerGroup:
    def __init__(
        self, ranks: Sequence[Any], config: RunConfig, vocab_size: int, ledger: str | None, restore: Restore | None = None
    ) -> None:
        self.ranks = list(ranks)
        self.size = len(self.ranks)
        self._config, self._vocab_size, self._ledger, self._restore = config, vocab_size, ledger, restore
        self._teacher_follows = False

    async def setup(self) -> None:
        """Load the model on every rank, or the checkpoint that the run goes on from."""
        universal = self._restore.universal_folder if self._restore and self._restore.universal else None
        if universal:
            await self.ranks[0].make_universal.remote()
        address, port = await self.ranks[0].address.remote()
        await self._all("setup", address, port)
        if universal:
            shutil.rmtree(universal, ignore_errors=True)

    async def connect(self, generators: Sequence[Any]) -> None:
        """Tell the first rank whom to send weights to."""
        workers = await asyncio.gather(*(g.ready.remote() for g in generators))
        address, port = await self.ranks[0].address.remote()
        config = self._config
        await self._all("connect", list(generators), list(workers), config.generator.dtype, config.sync.backend, address, port)

    async def connect_teacher(self, teachers: Sequence[Any]) -> None:
        """Tell the first rank which teachers follow the student."""
        workers = await asyncio.gather(*(t.ready.remote() for t in teachers))
        await self._all("connect_teacher", list(teachers), list(workers))

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]:
        found = await self._each("logprobs", self._plan(batch), self._config.temperature, self._vocab_size)
        return {sample_id: values for rank in found for sample_id, values in rank.items()}

    async def train(self, batch: TrainBatch) -> TrainReport:
        reports: list[RankReport] = await self._each(
            "forward_backward", self._plan(batch), step=batch.step, objective=self._config.objective,
            batch_size=len(batch.samples), temperature=self._config.temperature, vocab_size=self._vocab_size,
        )  # fmt: skip
        updates = await self._all("optimizer_step", batch.step, self._ledger)
        padded = sum(r.padded_tokens for r in reports)
        tokens = sum(r.tokens for r in reports)
        return TrainReport(
            loss=sum(r.loss for r in reports),
            divergence=sum(r.divergence for r in reports) / len(batch.samples),
            tokens=tokens,
            padding=1 - tokens / padded if padded else 0.0,
            mismatch_mean=sum(r.mismatch_sum for r in reports) / max(1, sum(r.response_tokens for r in reports)),
            mismatch_max=max(r.mismatch_max for r in reports),
            grad_norm=updates[0]["grad_norm"],
            lr=updates[0]["lr"],
            busy_seconds=[r.busy_seconds + u["busy_seconds"] for r, u in zip(reports, updates, strict=True)],
        )

    async def publish(self, version: Version) -> Publication:
        receipt = (await self._all("publish", version))[0]
        follow = self._config.follow
        # The first time always: of a run that goes on, teachers have the weights that they were loaded with.
        if follow and (version.number % follow.refresh_every == 0 or not self._teacher_follows):
            await self._all("publish_teacher", version)
            self._teacher_follows = True
        return Publication(
            version=version, bytes=receipt.bytes, publish_seconds=receipt.publish_seconds,
            receive_seconds=receipt.receive_seconds, seconds=receipt.seconds,
        )  # fmt: skip

    async def save(self, folder: str) -> None:
        """Copy every rank's state to its host's memory and start to write it below ``folder``."""
        await self._all("save", folder)

    async def written(self) -> None:
        """Wait until no rank writes any more; training calls go on meanwhile. Raises CheckpointError if one could not."""
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
        """Asked of a thread of its own on each rank: it answers in the middle of a step, and where a collective hangs."""
        return list(await asyncio.gather(*(r.written.options(concurrency_group=CONTROL).remote() for r in self.ranks)))

    def _plan(self, batch: TrainBatch) -> list[list[list[Any]]]:
        return plan(batch.samples, self.size, self._config.trainer.micro_batch_tokens)

    async def _all(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        return list(await asyncio.gather(*(getattr(r, method).remote(*args, **kwargs) for r in self.ranks)))

    async def _each(self, method: str, shares: Sequence[Any], *args: Any, **kwargs: Any) -> list[Any]:
        calls = (getattr(r, method).remote(share, *args, **kwargs) for r, share in zip(self.ranks, shares, strict=True))
        return list(await asyncio.gather(*calls))
