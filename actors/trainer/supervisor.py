"""The trainer as the step loop sees it: one group of ranks after another, and who receives their weights.

    begin(point) ──> train, publish, save ... ──> a rank dies: TrainerLost ──> begin(another point) ──> ...

Collectives tie the ranks together: if one dies or stops answering, the others would wait for it. So all are killed at once, and
a new group resumes from a checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from ray.exceptions import RayTaskError

from actors.cluster.processes import last_lines
from actors.errors import GONE, plain_reason
from actors.pools.base import Pool
from actors.pools.colocated import ColocatedGenerators
from actors.pools.jobs import Service
from actors.pools.waiting import PATIENCE_SECONDS, PING_SECONDS, WorkerLost, answer, guarded, heartbeat, new_failure
from actors.trainer.group import TrainerGroup
from actors.trainer.publisher import WeightPublisher
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.stages.faults import CrashLoopError
from renio_pipeline.stages.protocols import TrainerLost
from renio_pipeline.types import Publication, TrainBatch, TrainReport, Version

T = TypeVar("T")
POOL = "trainer"


class Trainers:
    """Every method except ``begin`` raises TrainerLost when a rank is lost. Then ``begin`` must be called again."""

    def __init__(
        self, start: Callable[[ResumePoint], TrainerGroup], generators: Pool | None, followers: Pool | None, service: Service
    ) -> None:
        self._start, self._service, self.restarts = start, service, 0
        self._config = service.config
        self.group: TrainerGroup | None = None
        self._turn = asyncio.Lock()  # no sync during a step, or during the copy for a checkpoint
        drain = self._config.in_flight == "drain"
        native = self._config.sync.backend != "host"
        self.to_generators = WeightPublisher(
            generators,
            lambda actors, workers: self._group.connect(actors, workers),
            lambda v: self._group.publish(v),
            drain=drain,
            native=native,
            again=self._again,
            service=service,
        )
        self.to_teachers = WeightPublisher(
            followers,
            lambda actors, workers: self._group.connect_teacher(actors, workers),
            lambda v: self._group.publish_teacher(v),
            drain=True,
            native=False,
            again=self._again,
            service=service,
        )
        self._version: Version | None = None  # the version that the generators have
        self._moved = False  # the ranks' weights are newer
        self._colocated: ColocatedGenerators | None = None
        if generators is not None and self._config.placement == "colocated":
            self._colocated = ColocatedGenerators(generators, self.to_generators.syncing)
            generators.workers.kind = replace(generators.workers.kind, turn=self._colocated.turn)
        for pool, to in ((generators, self.to_generators), (followers, self.to_teachers)):
            if pool is not None:
                pool.workers.kind = replace(pool.workers.kind, admit=to.admit)
        self._silent: asyncio.Future[None] | None = None
        self._beats: asyncio.Task[None] | None = None
        self._pids: list[int] = []

    @property
    def size(self) -> int:
        """Ranks that train, and have published."""
        return self.group.size if self.group is not None and self._version is not None else 0

    def ranks_from(self, start: Callable[[ResumePoint], TrainerGroup]) -> None:
        """From the next ``begin`` on, start the ranks with ``start``."""
        self._start = start

    async def begin(self, point: ResumePoint, check: Callable[[TrainerGroup], Awaitable[None]] | None = None) -> None:
        """End the current ranks, if any, and start new ones at ``point``. Their weights are sent only by ``publish``."""
        await self.end()
        self._silent = new_failure()
        self._version, self._moved = None, False
        self.to_generators.forget()
        self.to_teachers.forget()
        async with self._turn:
            if self._colocated is not None:
                await self._colocated.sleep()
            await self._start_ranks(point, check)
            await self._hand_back()

    async def _start_ranks(self, point: ResumePoint, check: Callable[[TrainerGroup], Awaitable[None]] | None) -> None:
        self.group = self._start(point)
        told = asyncio.create_task(self._tell_a_wait(self.group))
        try:
            if check is not None:
                await check(self.group)
            await self.group.setup()
        except GONE as error:
            if getattr(error, "actor_init_failed", False):
                raise
            self._lose(f"while it started: {plain_reason(error)}")
            assert self._silent is not None
            self._silent.result()  # raises
        finally:
            told.cancel()
        self._pids = await self.group.ping()
        self._beats = asyncio.create_task(self._beat())

    async def _tell_a_wait(self, group: TrainerGroup) -> None:
        """Say that the ranks wait for resources, if they do: a call to an actor that has no place says nothing."""
        await asyncio.sleep(PATIENCE_SECONDS)
        if not group.placed():
            self._service.note(
                f"pool {POOL}: {group.size} {'rank waits' if group.size == 1 else 'ranks wait'} for resources that the cluster "
                "does not have; the run waits too"
            )

    async def end(self) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        if self.group is not None:
            self.group.end(self._pids)
        self.group = self._beats = None
        self._pids = []

    @asynccontextmanager
    async def training(self) -> AsyncIterator[None]:
        """See ``renio_pipeline.stages.turns.Turns``. No sync comes in between either."""
        async with self._turn:
            if self._colocated is None:
                yield
                return
            try:
                await self._call(self._colocated.sleep())
                await self._call(self._group.onload())
                yield
                await self._hand_back()
            except TrainerLost:
                raise  # ``begin`` wakes them, when what is left of the ranks is gone
            except Exception:
                await self._colocated.wake_up()  # it may have been a command's own error, after which the run goes on
                raise

    async def _hand_back(self) -> None:
        """The ranks' turn is over."""
        if self._colocated is not None:
            await self._call(self._group.offload())
            await self._colocated.wake_up()

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]:
        return await self._call(self._group.logprobs(batch))

    async def train(self, batch: TrainBatch) -> TrainReport:
        """Within ``training()``."""
        self._moved = True
        report = await self._call(self._group.train(batch))
        self._service.slots.progress(POOL, 0)  # the ranks live and die as one
        return report

    async def publish(self, version: Version) -> Publication:
        """Bring every generator, and every teacher that follows, to this version."""
        if not self._config.generates:
            self._version, self._moved = version, False
            return Publication.to_nobody(version)
        started = time.perf_counter()
        async with self._turn:
            receipt = await self._call(self.to_generators.publish(version))
            follow = self._config.follow
            # The first time always: of a run that goes on, teachers have the weights that they were loaded with.
            if follow and (version.number % follow.refresh_every == 0 or self.to_teachers.version is None):
                await self._call(self.to_teachers.publish(version))
        self._version, self._moved = version, False
        return Publication(
            version=version,
            bytes=receipt.bytes,
            publish_seconds=receipt.publish_seconds,
            receive_seconds=receipt.receive_seconds,
            seconds=receipt.seconds,
            waited_seconds=max(0.0, time.perf_counter() - started - receipt.seconds),
        )

    async def save(self, folder: str) -> None:
        """Within ``training()``."""
        await self._call(self._group.save(folder))

    async def written(self) -> None:
        await self._call(self._group.written())

    async def while_healthy(self, waiting: Coroutine[Any, Any, T]) -> T:
        return await self._call(waiting)

    @property
    def _group(self) -> TrainerGroup:
        if self.group is None:
            raise TrainerLost("the ranks have ended")
        return self.group

    async def _again(self) -> None:
        """Send the current weights once more, when no step is under way: for a group that a newcomer must join."""
        async with self._turn:
            # Weights that have moved on would go under the old version, and those of new ranks under the lost ones': each
            # are sent next anyway.
            if self._version is not None and not self._moved:
                with suppress(TrainerLost):
                    await self._call(self.to_generators.publish(self._version))

    async def _call(self, waiting: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        """Await the ranks, no longer than they all live."""
        assert self._silent is not None, "begin() comes first"
        try:
            return await guarded(waiting, self._silent)
        except (*GONE, RayTaskError) as error:
            # A survivor's broken collective may be heard of before the death that broke it.
            await self._check(error)
            raise

    async def _check(self, error: BaseException) -> None:
        """Raises TrainerLost unless every rank is healthy: then the error is the program's own."""
        if isinstance(error, GONE):
            self._lose(plain_reason(error))
        try:
            await asyncio.sleep(PING_SECONDS if isinstance(error, RayTaskError) else 0)
            await answer(self._group.ping(), self._config.faults.heartbeat_seconds, "a ping")
        except (WorkerLost, *GONE) as gone:
            self._lose(plain_reason(gone))
        assert self._silent is not None
        if self._silent.done():
            self._silent.result()  # raises

    async def _beat(self) -> None:
        try:
            await heartbeat(self._group.ping, self._config.faults.heartbeat_seconds)
        except (WorkerLost, *GONE) as error:
            self._lose(plain_reason(error))

    def _lose(self, reason: str) -> None:
        """Whoever waits for the ranks gets TrainerLost, or CrashLoopError where they die again and again."""
        assert self._silent is not None
        if self._silent.done():
            return
        self.restarts += 1
        logs = "\n".join(filter(None, (last_lines(pid) for pid in self._pids)))
        lost: RuntimeError = TrainerLost(f"a trainer rank is lost: {reason}")
        try:
            self._service.slots.died(POOL, 0, time.monotonic(), reason, logs)
        except CrashLoopError as error:
            lost = error
        self._silent.set_exception(lost)
