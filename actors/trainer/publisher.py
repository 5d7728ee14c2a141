"""Publishes the trainer's weights to the workers of a pool, whose number changes from sync to sync."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ray.exceptions import ObjectLostError, RayTaskError

from actors.errors import GONE
from actors.pools.base import Pool
from actors.pools.jobs import Service
from actors.pools.waiting import WorkerLost, answer
from actors.pools.worker import Worker
from actors.weight_sync.sender import HostCopy, SyncReceipt, TransferFailed
from renio_pipeline.types import Version


class WeightPublisher:
    """Sends weights to all workers of a pool, and the last version to workers that join in between.

    With the ``host`` backend, a new worker loads the last host copy. The ``native`` backends keep no copy: a new worker waits
    for the next sync, for which the transfer group is rebuilt on a fresh port. If no worker is serving, it requests a sync.
    """

    def __init__(
        self,
        pool: Pool | None,
        connect: Callable[[Sequence[Any], Sequence[int]], Awaitable[None]],
        send: Callable[[Version], Awaitable[SyncReceipt]],
        *,
        drain: bool,
        native: bool,
        again: Callable[[], Awaitable[None]],
        service: Service,
    ) -> None:
        self.pool = pool
        self.version: Version | None = None
        self._connect, self._send, self._drain, self._native, self._again = connect, send, drain, native, again
        self._faults, self._note = service.config.faults, service.note
        self.syncing = asyncio.Lock()  # held while a worker receives weights
        self._members: list[Worker] | None = None  # the transfer group's workers
        self._copy: HostCopy | None = None

    def forget(self) -> None:
        """The ranks that published are gone, and with them the host copy they own."""
        self.version, self._members, self._copy = None, None, None

    async def publish(self, version: Version) -> SyncReceipt:
        """Send ``version`` to every worker. The pool replaces workers that are lost on the way."""
        if self.pool is None:
            return await self._round(version, [])
        async with self.pool.paused_dispatch(drain=self._drain), self.syncing:
            if self._native:
                await self.pool.workers.until(lambda: bool(self.pool and self.pool.workers.receivers))
            while True:
                workers = self.pool.workers.receivers
                try:
                    return await self._round(version, workers)
                except TransferFailed as error:
                    self._failed(error, workers)
                except RayTaskError as error:
                    if not isinstance(error.cause, TransferFailed):
                        raise
                    self._failed(error.cause, workers)

    async def admit(self, worker: Worker) -> None:
        """Send a new worker the version that the others have. Before the first sync it waits for that."""
        assert self.pool is not None
        workers = self.pool.workers
        async with self.syncing:
            if worker.state == "gone":
                raise WorkerLost("it was given up before it had its weights")
            if self._copy is not None:
                try:
                    await answer(worker.actor.load_copy.remote(self._copy), self._faults.transfer_seconds, "weights to load")
                except (RayTaskError, ObjectLostError) as error:
                    cause = error.cause if isinstance(error, RayTaskError) else error
                    if not isinstance(cause, (ObjectLostError, *GONE)):
                        raise
                    self._copy = None  # its owner is gone; the next ranks will publish
                else:
                    workers.serve(worker)
        if self._native and self.version is not None and not workers.serving:
            await self._again()

    async def _round(self, version: Version, workers: Sequence[Worker]) -> SyncReceipt:
        if self._members != list(workers):
            self._members = None
            await self._connect([w.actor for w in workers], [w.ready.receivers for w in workers])
            self._members = list(workers)
        self._copy = None  # so that the object store never holds two models
        receipt = await self._send(version)
        for index, reason in receipt.lost.items():
            workers[index].lose(f"in the weight sync: {reason}")
        self.version, self._copy = version, receipt.copy
        for index, worker in enumerate(workers):
            if index not in receipt.lost and self.pool is not None:
                self.pool.workers.serve(worker)
        return receipt

    def _failed(self, error: TransferFailed, workers: Sequence[Worker]) -> None:
        self._members = None
        if not error.lost:
            raise error
        self._note(f"a weight transfer failed and starts over without {len(error.lost)} of {len(workers)} receivers: {error}")
        for index, reason in error.lost.items():
            workers[index].lose(f"in the weight sync: {reason}")
