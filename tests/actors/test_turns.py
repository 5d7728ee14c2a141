"""Generators and ranks take turns on the same GPUs: the real run, pool and trainers, around engines and ranks that are fakes.

The fakes are in this process, without Ray. They know what their turn is, and write down each breach of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError

from actors.engines.generator import Ended, WriteRequest, Written
from actors.engines.result_batcher import ResultBatcher
from actors.packed_messages import pack, unpack
from actors.pools import waiting
from actors.pools.generators import GeneratorPool
from actors.pools.jobs import Service
from actors.pools.worker import Kind
from actors.trainer import supervisor as trainers_module
from actors.trainer.supervisor import Trainers
from actors.weight_sync.sender import HostCopy, SyncReceipt
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.engine_limits import EngineLimits, Ready
from renio_pipeline.stages.protocols import Stages, TrainerLost
from renio_pipeline.types import FIRST_VERSION, TrainBatch, TrainReport, Version
from tests.fakes.stages import REPORT, FakeTeachers, InProcessWeighting, Notes, config_of, prepared, prompts_of

__all__ = ["prepared"]  # a fixture
pytestmark = pytest.mark.usefixtures("quick_pings")
COLOCATED: dict[str, Any] = {"placement": "colocated", "pools": {"generator": {"replicas": 2}, "trainer": {"replicas": 2}}}


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (waiting, trainers_module):
        monkeypatch.setattr(module, "PING_SECONDS", 0.01)


@dataclass
class Method:
    """``actor.method.remote(...)``, of an actor that dies when it likes."""

    actor: FakeEngine
    function: Callable[..., Any]

    def options(self, **_: Any) -> Method:
        return self

    def remote(self, *args: Any) -> Any:
        return asyncio.ensure_future(self._call(*args))

    async def _call(self, *args: Any) -> Any:
        self.actor.alive()
        found = await self.function(*args)
        self.actor.alive()
        return found


@dataclass(eq=False)
class FakeEngine:
    scene: Scene
    slot: int
    dead: bool = False
    asleep: bool = False
    refuses_sleep: bool = False
    writes: int = 0
    updates: bool = False
    version: Version = FIRST_VERSION
    batcher: ResultBatcher[Ended] = field(default_factory=ResultBatcher)
    writing: set[asyncio.Task[None]] = field(default_factory=set)

    def __getattr__(self, name: str) -> Method:
        return Method(self, object.__getattribute__(self, f"_{name}"))

    def alive(self) -> None:
        if self.dead:
            raise RayActorError

    async def _ready(self) -> Ready:
        self.scene.log("load", ranks_may_not_work=True)
        await self.scene.loading()
        self.scene.log("loaded", ranks_may_not_work=True)
        return Ready(limits=EngineLimits(sequences=256, batched_tokens=4096))

    async def _ping(self) -> int:
        return 0

    async def _busy_seconds(self) -> float:
        return 0.0

    async def _cancel_all(self) -> None:
        pass

    async def _load_copy(self, copy: HostCopy) -> None:
        assert not self.asleep
        self.updates = True
        await self.scene.copying()
        self.updates, self.version = False, copy.version

    async def _sleep(self) -> None:
        assert not self.writes, "it was told to sleep in the middle of a response"
        assert not self.updates, "it was told to sleep in the middle of a weight update"
        if self.refuses_sleep:
            raise RuntimeError("I am not tired")
        self.asleep = True
        self.scene.log("sleep")

    async def _wake_up(self) -> None:
        self.asleep = False
        self.scene.log("wake_up", ranks_may_not_work=True)

    async def _exchange(self, packed: bytes) -> bytes:
        requests: list[WriteRequest] = unpack(packed)
        self.writes += len(requests)
        self.writing.add(asyncio.create_task(self._write(requests)))
        return pack(await self.batcher.take())

    async def _write(self, requests: list[WriteRequest]) -> None:
        for request in requests:
            await asyncio.sleep(0.001)
            if self.dead:
                return
            assert not self.asleep, "it was told to write in its sleep"
            self.scene.log("write", ranks_may_not_work=True)
            self.writes -= 1
            self.batcher.put(
                Written(
                    sample_id=request.sample_id,
                    token_ids=np.array([3, 4, 1], np.int32),
                    logprobs=np.full(3, -0.5, np.float32),
                    stop_reason="stop",
                    version=self.version,
                    last_version=self.version,
                )
            )


@dataclass
class FakeLease:
    actor: FakeEngine

    def placed(self) -> bool:
        return True

    def end(self, pid: int) -> None:
        self.actor.dead = True


@dataclass
class FakeGroup:
    """Two ranks, which are lost in the steps that the scene names."""

    scene: Scene
    size: int = 2
    dead: bool = False

    def __post_init__(self) -> None:
        self.engines: list[FakeEngine] = []

    async def setup(self) -> None:
        self.scene.log("setup")
        self.scene.ranks = "work"

    async def ping(self) -> list[int]:
        if self.dead:
            raise RayActorError
        return [0, 0]

    def end(self, pids: Sequence[int]) -> None:
        self.dead = True
        self.scene.log("end")
        self.scene.ranks = "gone"

    async def onload(self) -> None:
        self.scene.log("onload")
        self.scene.ranks = "work"

    async def offload(self) -> None:
        self.scene.log("offload")
        self.scene.ranks = "away"

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]:
        self._works("logprobs")
        return {s.sample_id: s.student_logprobs for s in batch.samples}

    async def train(self, batch: TrainBatch) -> TrainReport:
        self._works("train")
        await self.scene.during(batch.step)
        if self.scene.lost_in == batch.step:
            self.scene.lost_in, self.dead = 0, True
            raise RayActorError
        return REPORT

    async def connect(self, engines: list[FakeEngine], workers: list[int]) -> None:
        self.engines = engines

    async def publish(self, version: Version) -> SyncReceipt:
        self.scene.log("publish", ranks_may_not_work=True)
        for engine in self.engines:
            assert not engine.asleep, "weights were sent to an engine that sleeps"
            engine.version = version
        copy = HostCopy(version=version, kind="weights", chunks=())
        return SyncReceipt(version=version, bytes=1, publish_seconds=0, receive_seconds=0, seconds=0.001, copy=copy)

    async def save(self, folder: str) -> None:
        self._works("save")
        Path(folder, "weights").write_text("w")

    async def written(self) -> None:
        pass

    def _works(self, what: str) -> None:
        self.scene.log(what)
        assert self.scene.ranks == "work", f"{what} without a turn"
        assert all(engine.asleep for engine in self.scene.living), f"{what} beside an engine that is awake"


@dataclass
class Scene:
    """Everything that shares two GPUs, and what it did."""

    prepared: Prepared
    changes: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lives: list[FakeEngine] = field(default_factory=list)
    ranks: str = "gone"
    lost_in: int = 0  # step
    during: Callable[[int], Awaitable[Any]] = lambda step: asyncio.sleep(0.005)
    loading: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(0)
    copying: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(0)

    def __post_init__(self) -> None:
        self.config = config_of(**COLOCATED | self.changes)
        self.service = Service(config=self.config, quarantine=QuarantineLog(None, self.notes.append), note=self.notes.append)

    def log(self, event: str, *, ranks_may_not_work: bool = False) -> None:
        self.events.append(event)
        if ranks_may_not_work and self.ranks == "work":
            self.breaches.append(f"{event} in the ranks' turn, after {self.events[-8:]}")

    @property
    def living(self) -> list[FakeEngine]:
        return [engine for engine in self.lives if not engine.dead]

    def start(self, slot: int) -> FakeLease:
        self.lives.append(FakeEngine(self, slot))
        return FakeLease(self.lives[-1])

    def order(self) -> list[str]:
        """What was done, without repetitions in a row."""
        return [e for e, before in zip(self.events, ["", *self.events], strict=False) if e != before]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Scene]:
        kind = Kind(name="generator", start=self.start)
        self.pool = GeneratorPool(kind, 2, self.service)
        self.trainers = Trainers(lambda point: FakeGroup(self), self.pool, None, self.service)
        self.pool.workers.open()
        try:
            async with asyncio.timeout(20):
                await self.pool.workers.settled(all_of_them=True)
                await self.trainers.begin(ResumePoint())
                yield self
        finally:
            await self.trainers.end()
            self.pool.close()
        assert not self.breaches

    async def publish(self, number: int = 0) -> None:
        await self.trainers.publish(Version(0, number))

    async def write(self) -> int:
        return len([r async for r in self.pool.generate(prompts_of(self.prepared, self.config), 1.0)])

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.002)


def run_of(scene: Scene, folder: Path) -> Run:
    config = scene.config.model_copy(update={"run_dir": str(folder / "run")})
    stages = Stages(
        generators=scene.pool,
        teachers=FakeTeachers(),
        trainers=scene.trainers,
        turns=scene.trainers,
        weighting=InProcessWeighting(config),
        pools={"generator": scene.pool},
    )
    return Run(
        config=config, prepared=scene.prepared, stages=stages, directory=RunDirectory(config), progress=Notes(), sinks=[]
    )


STEP = ["sleep", "onload", "logprobs", "train", "offload", "wake_up", "publish"]
SAVE = ["sleep", "onload", "save", "offload", "wake_up"]


def test_a_run_with_evaluations_and_checkpoints_takes_turns(prepared: Prepared, tmp_path: Path) -> None:
    changes = {"steps": 2, "student_logprobs": "trainer", "evaluate": {"problems": 5, "every": 1}, "checkpoint": {"every": 2}}

    async def go() -> None:
        async with Scene(prepared, changes).opened() as scene:
            await run_of(scene, tmp_path).run()
            start = ["load", "loaded", "sleep", "setup", "offload", "wake_up", "publish", "write"]
            assert scene.order() == [*start, *STEP, "write", *STEP, "write", *SAVE]

    asyncio.run(go())


def test_after_the_loss_of_a_rank_in_its_turn_they_go_on_taking_turns(prepared: Prepared, tmp_path: Path) -> None:
    changes = {"steps": 3, "evaluate": {"problems": 5, "every": 1}, "checkpoint": {"every": 1}, "student_logprobs": "trainer"}

    async def go() -> None:
        scene = Scene(prepared, changes, lost_in=2)
        async with scene.opened():
            run = run_of(scene, tmp_path)
            await run.run()
            assert (scene.trainers.restarts, run.step, run.version) == (1, 3, Version(1, 3))
            lost = scene.events.index("end")
            assert scene.order()[scene.order().index("end") - 1] == "train"
            after = scene.events[lost:]
            assert [e for i, e in enumerate(after) if e != after[i - 1]][:7] == [
                "end",
                "sleep",
                "setup",
                "offload",
                "wake_up",
                "publish",
                "write",
            ]
            assert len(read_jsonl(run.directory.path / "samples/step_000003.jsonl")) == scene.config.batch_size

    asyncio.run(go())


def test_a_paused_run_is_checkpointed_and_goes_on(prepared: Prepared, tmp_path: Path) -> None:
    async def go() -> None:
        async with Scene(prepared, {"steps": 3, "evaluate": {"problems": 0}}).opened() as scene:
            run = run_of(scene, tmp_path)
            running = asyncio.create_task(run.run())
            await scene.until(lambda: run.step == 1)
            await run.pause.begin()
            step, path = await run.ask_checkpoint()
            assert (step, path) == (run.step, run.directory.checkpoints / f"step_{step:06d}")
            assert await run.ask_checkpoint() == (step, path), "nothing has changed: it is the one that there is"
            assert not any(engine.asleep for engine in scene.living)
            await run.pause.end()
            await running
            assert run.step == 3

    asyncio.run(go())


def test_a_sample_that_is_wanted_in_the_ranks_turn_waits_for_its_end(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            async with scene.trainers.training():
                writing = asyncio.create_task(scene.write())
                await asyncio.sleep(0.05)
                assert scene.pool.status()["in_flight"] == 0
            assert await writing == scene.config.batch_size

    asyncio.run(go())


def test_the_ranks_wait_for_responses_that_nobody_wants_any_more(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            responses = scene.pool.generate(prompts_of(prepared, scene.config), 1.0)
            await anext(responses)
            await responses.aclose()  # as a filter does that has enough
            assert scene.pool.status()["in_flight"]
            async with scene.trainers.training():
                assert not any(engine.writes for engine in scene.living)
            assert scene.pool.workers.restarts == 0

    asyncio.run(go())


def test_a_generator_lost_in_the_ranks_turn_is_replaced_after_it_with_the_new_weights(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            async with scene.trainers.training():
                scene.lives[0].dead = True
                await scene.until(lambda: scene.pool.workers.restarts == 1)
                await asyncio.sleep(0.05)
                assert len(scene.lives) == 2, "it must not load in the ranks' turn"
            await scene.publish(1)
            await scene.until(lambda: scene.pool.size == 2)
            assert await scene.write() == scene.config.batch_size
            assert {engine.version for engine in scene.living} == {Version(0, 1)}

    asyncio.run(go())


def test_the_ranks_wait_for_a_generator_that_loads_already(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            loaded = asyncio.Event()
            scene.loading = loaded.wait
            scene.lives[1].dead = True
            await scene.until(lambda: len(scene.lives) == 3 and scene.pool.status()["starting"] == 1)
            turn = scene.trainers.training()
            asking = asyncio.create_task(turn.__aenter__())
            await asyncio.sleep(0.05)
            assert not asking.done()
            loaded.set()
            await asking
            assert all(engine.asleep for engine in scene.living)
            await turn.__aexit__(None, None, None)
            await scene.publish(1)
            assert await scene.write() == scene.config.batch_size

    asyncio.run(go())


def test_the_ranks_wait_for_a_newcomer_that_gets_its_weights(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            copied = asyncio.Event()
            scene.copying = copied.wait
            scene.lives[1].dead = True
            await scene.until(lambda: scene.lives[-1].updates)
            asyncio.get_running_loop().call_later(0.05, copied.set)
            async with scene.trainers.training():
                assert copied.is_set()
            assert scene.pool.workers.restarts == 1

    asyncio.run(go())


def test_ranks_that_are_lost_while_they_wait_for_a_generator_begin_again(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            loaded = asyncio.Event()
            scene.loading = loaded.wait
            scene.lives[1].dead = True
            await scene.until(lambda: scene.pool.status()["starting"] == 1)
            asking = asyncio.create_task(scene.trainers.training().__aenter__())
            await asyncio.sleep(0.01)
            scene.trainers.group.dead = True  # type: ignore[union-attr, attr-defined]
            with pytest.raises(TrainerLost):
                await asking
            loaded.set()
            await scene.trainers.begin(ResumePoint())
            await scene.publish(1)
            assert await scene.write() == scene.config.batch_size

    asyncio.run(go())


def test_a_generator_that_does_not_sleep_is_given_up(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            scene.lives[0].refuses_sleep = True
            async with scene.trainers.training():
                await scene.until(lambda: scene.lives[0].dead)
            await scene.publish(1)
            await scene.until(lambda: scene.pool.size == 2)
            assert "replica 0 is lost: when it was told to sleep: I am not tired" in scene.notes[0]

    asyncio.run(go())


def test_after_an_error_in_the_ranks_turn_that_was_not_a_loss_the_generators_are_awake(prepared: Prepared) -> None:
    async def go() -> None:
        async with Scene(prepared).opened() as scene:
            await scene.publish()
            turn = scene.trainers.training()
            await turn.__aenter__()
            scene.ranks = "away"  # the fake's own bookkeeping: this turn ends without its consent
            error = RuntimeError("a full disk")
            assert not await turn.__aexit__(RuntimeError, error, None)
            assert await scene.write() == scene.config.batch_size

    asyncio.run(go())
