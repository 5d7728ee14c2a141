"""The pool of a served teacher: one call a response, waiting while no server answers, quarantine of what ends servers.

The real pool, around replicas that are fakes in this process, without Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from actors.pools import served_teachers
from actors.pools.jobs import Service
from actors.pools.served_teachers import ServedTeacherPool
from actors.pools.worker import Kind, Worker
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.served.client import Standing
from renio_pipeline.served.faults import KillsServersError, RequestRefusedError
from renio_pipeline.stages.engine_limits import EngineLimits, Ready
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.types import Prompt, Rollout, Row, ScoredRollout, ScoreRequest, Version
from tests.actors.test_teacher_texts import Method
from tests.fakes.stages import config_of

AT_A_TIME = 4
REASON = "Cannot connect to host"


@dataclass
class Scene:
    """What the servers behind the replicas do."""

    up: bool = True
    busy: bool = False  # they ask for patience
    errors: dict[int, Exception] = field(default_factory=dict)  # by sample id
    slow: set[int] = field(default_factory=set)  # samples that wait for ``hurry``
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[list[int]] = field(default_factory=list)
    now: int = 0
    most: int = 0


class FakeReplica:
    """The verbs of an HttpTeacher; also its own lease."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.actor = scene, self

    def __getattr__(self, name: str) -> Method:
        return Method(object.__getattribute__(self, f"_{name}"))

    def placed(self) -> bool:
        return True

    def end(self, pid: int) -> None:
        pass

    async def _ready(self) -> Ready:
        return Ready(limits=EngineLimits(sequences=AT_A_TIME, batched_tokens=4096))

    async def _ping(self) -> int:
        return 0

    async def _cancel_all(self) -> None:
        self.scene.hurry.set()

    async def _standing(self) -> Standing:
        return (
            Standing(up=2, away={}, busy=self.scene.busy)
            if self.scene.up
            else Standing(up=0, away={"a:1": REASON, "b:2": REASON})
        )

    async def _score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], None]:
        ids = [r.sample_id for r in requests]
        self.scene.calls.append(ids)
        self.scene.now += len(ids)
        self.scene.most = max(self.scene.most, self.scene.now)
        try:
            await asyncio.sleep(0.01)
            for i in ids:
                if i in self.scene.slow:
                    await self.scene.hurry.wait()
                if i in self.scene.errors:
                    raise self.scene.errors[i]
        finally:
            self.scene.now -= len(ids)
        return [np.zeros(len(r.response_ids), np.float32) for r in requests], None


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_teachers, "LOOK_SECONDS", 0.05)


@asynccontextmanager
async def pool_of(scene: Scene, check: Any = None, **changes: Any) -> AsyncIterator[tuple[ServedTeacherPool, list[str]]]:
    teacher = {"model": "embedded:teacher", "type": "http", "urls": ["http://a:1", "http://b:2"], "timeout": 0.05}
    notes: list[str] = []
    config = config_of(teacher=teacher, **changes)
    service = Service(config=config, quarantine=QuarantineLog(None, notes.append), note=notes.append)
    budget = PayloadBudget(2**40, 1, 0)
    budget.open(1)
    kind = Kind(name="teacher", start=lambda slot: FakeReplica(scene), check=check)
    pool = ServedTeacherPool(kind, 1, service, budget)
    pool.workers.open()
    try:
        async with asyncio.timeout(60):
            await pool.workers.settled()
            yield pool, notes
    finally:
        pool.close()


async def rollouts(count: int) -> AsyncIterator[Rollout]:
    ids = np.arange(5, dtype=np.int32)
    for i in range(count):
        prompt = Prompt(sample_id=i, row=Row(id=str(i), problem=""), student_ids=ids, teacher_ids=ids)
        yield Rollout(prompt=prompt, token_ids=ids, logprobs=np.zeros(5), stop_reason="stop", version=Version(0, 0))


def ids_of(found: list[ScoredRollout]) -> list[int]:
    return [s.rollout.sample_id for s in found]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_each_response_is_a_call_and_a_slow_one_delays_no_other() -> None:
    async def go() -> None:
        scene = Scene(slow={0})
        async with pool_of(scene) as (pool, _):
            scoring = asyncio.create_task(pool.score(rollouts(20), 1))
            await until(lambda: len(scene.calls) == 20 and pool.workers.in_flight() == 1)
            scene.hurry.set()
            assert ids_of(await scoring) == list(range(20))
        assert all(len(call) == 1 for call in scene.calls)
        assert scene.most == AT_A_TIME

    asyncio.run(go())


def test_the_pool_waits_longer_than_any_deadline_while_no_server_answers_and_says_so() -> None:
    async def go() -> None:
        scene = Scene(slow=set(range(6)))
        faults = {"deadline_seconds": 2.0, "teacher_seconds_per_token": 1e-6}
        async with pool_of(scene, faults=faults) as (pool, notes):
            scoring = asyncio.create_task(pool.score(rollouts(6), 1))
            await until(lambda: len(scene.calls) == AT_A_TIME)
            scene.up = False
            await until(lambda: pool.status()["away"] == 1)
            await asyncio.sleep(3.0)
            assert not scoring.done()
            assert pool.status()["restarts"] == 0
            assert [n for n in notes if "no server answers" in n] == notes, "it is said once"
            assert f"a:1: {REASON}; b:2: {REASON}" in notes[0]
            scene.up = True
            scene.hurry.set()
            assert ids_of(await scoring) == list(range(6))
            assert pool.status()["away"] == 0
            assert notes[1:] == ["pool teacher: 2 of 2 servers answer again"]

    asyncio.run(go())


def test_a_replica_that_is_late_although_its_servers_answer_is_replaced() -> None:
    async def go() -> None:
        scene = Scene(slow={1})
        faults = {"deadline_seconds": 0.3, "teacher_seconds_per_token": 1e-6}
        async with pool_of(scene, faults=faults) as (pool, notes):
            scoring = asyncio.create_task(pool.score(rollouts(3), 1))
            await until(lambda: pool.status()["restarts"] == 1)
            scene.slow.clear()
            assert ids_of(await scoring) == [0, 1, 2]
        assert "no answer to 1 responses to score in 0.3" in notes[0]

    asyncio.run(go())


def test_several_servers_may_be_late_and_asking_for_patience_is_not_being_late() -> None:
    async def go() -> None:
        scene = Scene(slow={1}, busy=True)
        faults = {"deadline_seconds": 0.3, "teacher_seconds_per_token": 1e-6}
        async with pool_of(scene, faults=faults) as (pool, _):
            scoring = asyncio.create_task(pool.score(rollouts(3), 1))
            await asyncio.sleep(2.0)
            assert pool.status()["restarts"] == 0
            scene.busy = False
            await until(lambda: pool.status()["restarts"] == 1)
            scene.slow.clear()
            assert ids_of(await scoring) == [0, 1, 2]

    asyncio.run(go())


def test_a_sample_that_failed_alone_leaves_its_replica_to_the_next() -> None:
    async def go() -> None:
        scene = Scene(errors={0: KillsServersError("sample 0 ends them")})
        async with pool_of(scene) as (pool, _):
            for _ in range(2):
                pool.poison_samples.died([0], False)
            assert ids_of(await pool.score(rollouts(3), 1)) == [1, 2]
            scene.errors = {1: RequestRefusedError("sample 1 is refused")}
            pool.poison_samples.died([1], False)
            pool.poison_samples.died([1], False)
            with pytest.raises(RequestRefusedError):
                await pool.score(rollouts(2), 1)
            scene.errors = {}
            assert 2 in ids_of(await pool.score(rollouts(3), 1))

    asyncio.run(go())


def test_a_sample_with_which_servers_end_is_quarantined_alone() -> None:
    async def go() -> None:
        scene = Scene(errors={2: KillsServersError("sample 2: 4 times a server's connection ended with it")})
        async with pool_of(scene) as (pool, notes):
            assert ids_of(await pool.score(rollouts(6), 1)) == [0, 1, 3, 4, 5]
            assert pool.service.quarantine.ids == {2}
            assert pool.workers.in_flight() == 0
            assert "4 times a server's connection" in notes[0]

    asyncio.run(go())


def test_when_all_samples_end_their_servers_the_servers_are_at_fault() -> None:
    async def go() -> None:
        scene = Scene(errors={i: KillsServersError(f"sample {i} ends them") for i in range(8)})
        async with pool_of(scene) as (pool, _):
            with pytest.raises(KillsServersError):
                await pool.score(rollouts(8), 1)
            assert len(pool.service.quarantine.ids) == served_teachers.MOST_QUARANTINED

    asyncio.run(go())


def test_a_refused_request_ends_the_run_with_the_servers_reason() -> None:
    async def go() -> None:
        async with pool_of(Scene(errors={1: RequestRefusedError("sample 1: teacher: a:1: too long")})) as (pool, _):
            with pytest.raises(RequestRefusedError, match="sample 1: teacher: a:1: too long"):
                await pool.score(rollouts(3), 1)

    asyncio.run(go())


def test_a_replica_that_starts_while_no_server_answers_waits_for_one() -> None:
    async def go() -> None:
        scene, checked = Scene(), list[Worker]()

        async def check(worker: Worker) -> None:
            checked.append(worker)

        async with pool_of(scene, check=check) as (pool, notes):
            assert len(checked) == 1
            scene.up = False
            pool.resize(2)
            await until(lambda: pool.status()["away"] == 1)
            assert pool.status()["serving"] == 1
            assert "no server answers, and 0 samples wait" in notes[0]
            scene.up = True
            await until(lambda: pool.status()["serving"] == 2)
            assert len(checked) == 2
            assert "2 of 2 servers answer again" in notes[1]

    asyncio.run(go())
