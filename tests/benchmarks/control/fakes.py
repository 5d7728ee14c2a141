"""Fakes of what has processes of its own in a run: actors, their leases, engines and the trainer."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Coroutine, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray.exceptions import ActorDiedError

from renio_pipeline.in_process.weighting import InProcessWeighting
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.ledger_files import record_trained
from renio_pipeline.types import FIRST_VERSION, Publication, TrainBatch, TrainReport, Version
from renio_pipeline.weightings import ScoredBatch
from renio_pipeline.weightings.step import Weighed, weigh_step
from tests.benchmarks.schedule.engines import FakeGenerator, FakeTeacher, Sleeper
from tests.benchmarks.schedule.load import Load

_pids = itertools.count(2**22 + 1)  # more than Linux gives a process


class FakeActor:
    """An engine in this process, called as an actor is. ``die`` ends it, as the end of its process would."""

    def __init__(self, engine: Sleeper) -> None:
        self.engine, self._pid = engine, next(_pids)
        self._under_way: set[asyncio.Task[Any]] = set()
        self.dead = False
        engine._done = deque(maxlen=0)  # what it did is of no interest here

    def __getattr__(self, verb: str) -> FakeCall:
        if verb.startswith("_"):
            raise AttributeError(verb)
        return FakeCall(self, verb)

    def die(self) -> None:
        self.dead = True
        for task in list(self._under_way):
            task.cancel()

    async def call(self, verb: str, args: Sequence[Any]) -> Any:
        if verb == "ping" and not self.dead:
            return self._pid
        task = asyncio.create_task(getattr(self.engine, verb)(*args))
        self._under_way.add(task)
        try:
            if self.dead:
                raise asyncio.CancelledError
            return await task
        except asyncio.CancelledError:
            task.cancel()
            if self.dead:
                raise ActorDiedError from None
            raise
        finally:
            self._under_way.discard(task)


class FakeCall:
    def __init__(self, actor: FakeActor, verb: str) -> None:
        self._actor, self._verb = actor, verb

    def remote(self, *args: Any) -> FakeReference:
        return FakeReference(asyncio.create_task(self._actor.call(self._verb, args)))


class FakeReference:
    """Who gives up waiting does not end the call."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        task.add_done_callback(lambda t: t.cancelled() or t.exception())

    def __await__(self) -> Generator[Any, Any, Any]:
        return asyncio.shield(self._task).__await__()


class FakeLease:
    def __init__(self, actor: FakeActor) -> None:
        self.actor = actor

    def placed(self) -> bool:
        return True

    def end(self, pid: int) -> None:
        self.actor.die()


class FakeStarts:
    """Starts the fakes of a pool, generators with the newest weights; ``living`` has those of each slot."""

    def __init__(self, engine: type[FakeGenerator] | type[FakeTeacher], load: Load) -> None:
        self._engine, self._load = engine, load
        self.version = FIRST_VERSION
        self.living: dict[int, FakeActor] = {}

    def __call__(self, slot: int) -> FakeLease:
        engine = self._engine(self._load)
        if isinstance(engine, FakeGenerator):
            engine._version = self.version
        self.living[slot] = FakeActor(engine)
        return FakeLease(self.living[slot])


class FakeWeighting(InProcessWeighting):
    """The weighting in a thread in the place of its actor, so that it is not the loop's work."""

    async def weigh(self, batch: ScoredBatch) -> Weighed:
        weighed = await asyncio.to_thread(weigh_step, self._weighting, self._pivotal, batch, self._state)
        self._state = weighed.state
        return weighed


class FakeTrainers:
    """Sleeps for a step, writes a ledger as a rank does, and holds every generator still for a sync."""

    size, restarts = 1, 0

    def __init__(self, load: Load, generators: FakeStarts, ledger: Path) -> None:
        self._load, self._generators, self._ledger = load, generators, ledger

    async def while_healthy(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        return await waiting

    async def begin(self, point: ResumePoint) -> None:
        raise AssertionError("no rank is lost here")

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]:
        raise AssertionError("the generators' are used")

    async def train(self, batch: TrainBatch) -> TrainReport:
        await asyncio.sleep(self._load.train_seconds)
        ids = [sample.sample_id for sample in batch.samples]
        record_trained(self._ledger, 0, step=batch.step, incarnation=0, sample_ids=ids)
        return TrainReport(
            loss=1.0, divergence=1.0, tokens=sum(s.tokens for s in batch.samples), padding=0.0, mismatch_mean=0.0,
            mismatch_max=0.0, grad_norm=1.0, lr=1e-6, busy_seconds=[self._load.train_seconds], shares=[ids],
        )  # fmt: skip

    async def publish(self, version: Version) -> Publication:
        self._generators.version = version
        engines = [actor.engine for actor in self._generators.living.values() if isinstance(actor.engine, FakeGenerator)]
        await asyncio.gather(*(engine.take_weights(version) for engine in engines))
        seconds = self._load.sync_seconds
        return Publication(version=version, bytes=0, publish_seconds=0.0, receive_seconds=0.0, seconds=seconds)

    async def save(self, folder: str) -> None:
        Path(folder, "weights").write_text("w")

    async def written(self) -> None:
        pass
