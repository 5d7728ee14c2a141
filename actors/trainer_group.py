"""The trainer ranks as one stage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.training import RankReport
from renio_pipeline.batching import plan
from renio_pipeline.config import RunConfig
from renio_pipeline.pipeline import Publication, TrainReport
from renio_pipeline.types import TrainBatch, Version


class TrainerGroup:
    def __init__(self, ranks: Sequence[Any], config: RunConfig, vocab_size: int, ledger: str | None) -> None:
        self.ranks = list(ranks)
        self.size = len(self.ranks)
        self._config, self._vocab_size, self._ledger = config, vocab_size, ledger

    async def setup(self) -> None:
        """Load the model on every rank."""
        address, port = await self.ranks[0].address.remote()
        await self._all("setup", address, port)

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
        if follow and version.number % follow.refresh_every == 0:
            await self._all("publish_teacher", version)
        return Publication(
            version=version, bytes=receipt.bytes, publish_seconds=receipt.publish_seconds,
            receive_seconds=receipt.receive_seconds, seconds=receipt.seconds,
        )  # fmt: skip

    async def save(self, folder: str) -> None:
        await self._all("save", folder)

    def _plan(self, batch: TrainBatch) -> list[list[list[Any]]]:
        return plan(batch.samples, self.size, self._config.trainer.micro_batch_tokens)

    async def _all(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        return list(await asyncio.gather(*(getattr(r, method).remote(*args, **kwargs) for r in self.ranks)))

    async def _each(self, method: str, shares: Sequence[Any], *args: Any, **kwargs: Any) -> list[Any]:
        calls = (getattr(r, method).remote(share, *args, **kwargs) for r, share in zip(self.ranks, shares, strict=True))
        return list(await asyncio.gather(*calls))
