"""Texts that a teacher's pool writes: who writes which, with what seed, beside what, and what becomes of them when workers die.

The real pool around teachers that are fakes in this process, without Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError

from actors.pools.jobs import Service
from actors.pools.teachers import TeacherPool
from actors.pools.worker import Kind
from renio_pipeline.config.schema import Faults
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.engine_limits import EngineLimits, Ready
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.types import (
    Continuation,
    ContinuationRequest,
    Prompt,
    Rollout,
    Row,
    ScoredRollout,
    ScoreRequest,
    Version,
)
from tests.fakes.stages import config_of

AT_A_TIME = 3  # texts of one engine


@dataclass
class Scene:
    """What the teachers do: ``deadly`` texts kill whoever has them, those of ``slow`` slots end once ``hurry`` is set."""

    engine: bool = True
    deadly: dict[int, int] = field(default_factory=dict)  # by a prompt's first token: how often it kills
    slow: set[int] = field(default_factory=set)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    calls: dict[int, list[list[int]]] = field(default_factory=dict)  # by slot: first tokens or sample ids of each call
    most: dict[int, int] = field(default_factory=dict)  # by slot: texts at a time


class Method:
    """``actor.method.remote(...)``."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._function = function

    def options(self, **_: Any) -> Method:
        return self

    def remote(self, *args: Any) -> Any:
        return asyncio.ensure_future(self._function(*args))


class FakeTeacher:
    """The verbs of a teacher; also its own lease."""

    def __init__(self, scene: Scene, slot: int) -> None:
        self.scene, self.slot, self.dead, self.texts = scene, slot, asyncio.Event(), 0
        self.actor = self

    def __getattr__(self, name: str) -> Method:
        return Method(object.__getattribute__(self, f"_{name}"))

    def placed(self) -> bool:
        return True

    def end(self, pid: int) -> None:
        self.dead.set()

    async def _ready(self) -> Ready:
        return Ready(limits=EngineLimits(sequences=AT_A_TIME, batched_tokens=4096) if self.scene.engine else None)

    async def _ping(self) -> int:
        return 0

    async def _cancel_all(self) -> None:
        self.scene.hurry.set()

    async def _write(self, requests: list[ContinuationRequest]) -> list[Continuation]:
        numbers = [int(r.prompt_ids[0]) for r in requests]
        self.scene.calls.setdefault(self.slot, []).append(numbers)
        self.texts += len(requests)
        self.scene.most[self.slot] = max(self.scene.most.get(self.slot, 0), self.texts)
        await self._work(numbers)
        self.texts -= len(requests)
        return [Continuation(token_ids=np.array([r.prompt_ids[0], r.seed]), stop_reason="stop") for r in requests]

    async def _score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], None]:
        self.scene.calls.setdefault(self.slot, []).append([r.sample_id for r in requests])
        await self._work([])
        return [np.zeros(len(r.response_ids), np.float32) for r in requests], None

    async def _work(self, numbers: list[int]) -> None:
        await asyncio.sleep(0.01)
        for number in numbers:
            if self.scene.deadly.get(number, 0):
                self.scene.deadly[number] -= 1
                self.dead.set()
        if numbers and self.slot in self.scene.slow:
            await self.scene.hurry.wait()
        if self.dead.is_set():
            raise RayActorError


@asynccontextmanager
async def pool_of(scene: Scene, size: int = 2, **changes: Any) -> AsyncIterator[TeacherPool]:
    config = config_of(teacher={"model": "embedded:teacher", "dtype": "float32"}, **changes)
    service = Service(config=config, quarantine=QuarantineLog(None, lambda text: None))
    budget = PayloadBudget(2**40, 1, 0)
    budget.open(1)
    pool = TeacherPool(Kind(name="teacher", start=lambda slot: FakeTeacher(scene, slot)), size, service, budget)
    pool.workers.open()
    try:
        async with asyncio.timeout(60):
            await pool.workers.settled(all_of_them=True)
            yield pool
    finally:
        pool.close()


def asked(*numbers: int, n: int = 1) -> list[ContinuationRequest]:
    return [ContinuationRequest(prompt_ids=np.array([i], np.int32), max_tokens=4, seed=100 + i, n=n) for i in numbers]


def told(found: list[list[Continuation]]) -> list[list[tuple[int, ...]]]:
    """Each text's prompt and seed."""
    return [[tuple(map(int, text.token_ids)) for text in texts] for texts in found]


def expected(*numbers: int, n: int = 1) -> list[list[tuple[int, ...]]]:
    return [[(i, sample_seed(100 + i, k)) for k in range(n)] for i in numbers]


async def stream(*sample_ids: int) -> AsyncIterator[Rollout]:
    ids = np.zeros(5, np.int32)
    for i in sample_ids:
        prompt = Prompt(sample_id=i, row=Row(id=str(i), problem=""), student_ids=ids, teacher_ids=ids)
        yield Rollout(prompt=prompt, token_ids=ids, logprobs=ids.astype(np.float32), stop_reason="stop", version=Version(0, 0))


def ids_of(scored: list[ScoredRollout]) -> list[int]:
    return [s.rollout.sample_id for s in scored]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_texts_go_where_others_end_and_are_written_while_responses_are_scored() -> None:
    async def go() -> None:
        scene = Scene(slow={0})
        async with pool_of(scene) as pool:
            writing = asyncio.ensure_future(pool.write(asked(*range(10), n=2)))
            assert ids_of(await pool.score(stream(100, 101), 1)) == [100, 101], "scoring waits for no text"
            await until(lambda: pool.status()["in_flight"] == AT_A_TIME and not pool.queue)
            assert not writing.done()
            assert [call for call in scene.calls[0] if call[0] < 100] == [[0], [0], [1]], "the slow one has its three"
            scene.hurry.set()
            assert told(await writing) == expected(*range(10), n=2)
            assert scene.most == {0: AT_A_TIME, 1: AT_A_TIME}

    asyncio.run(go())


@pytest.mark.parametrize("engine", [True, False], ids=["deterministic", "torch"])
def test_a_deterministic_run_and_a_torch_teacher_do_one_thing_at_a_time(engine: bool) -> None:
    async def go() -> None:
        scene = Scene(engine=engine)
        async with pool_of(scene, deterministic=engine, trainer={"dtype": "float32"}, generator={"dtype": "float32"}) as pool:
            both = asyncio.gather(pool.write(asked(*range(5))), pool.score(stream(100, 101, 102, 103), 1))
            assert told((await both)[0]) == expected(*range(5))
            if engine:
                assert scene.calls == {0: [[0, 2, 4], [100, 102]], 1: [[1, 3], [101, 103]]}
            else:  # as many texts as there are for each replica, in one call
                assert sorted(scene.calls[0][:1] + scene.calls[1][:1]) == [[0, 1, 2], [3, 4]]

    asyncio.run(go())


def test_a_lost_teachers_texts_are_written_by_another_with_their_seeds() -> None:
    async def go() -> None:
        scene = Scene(deadly={2: 1})
        async with pool_of(scene) as pool:
            assert told(await pool.write(asked(*range(8)))) == expected(*range(8))
            await until(lambda: pool.size == 2)
            assert pool.status()["restarts"] == 1

    asyncio.run(go())


def test_a_text_that_kills_whoever_writes_it_is_its_callers_error_and_no_other_is_lost() -> None:
    async def go() -> None:
        async with pool_of(Scene(deadly={7: 99})) as pool:
            calls = [asyncio.ensure_future(pool.write(asked(i))) for i in (1, 7, 2)]
            with pytest.raises(KillsWorkers, match=r"pool teacher: a text of up to 4 tokens after a prompt of 1: two workers"):
                await calls[1]
            assert told(await calls[0] + await calls[2]) == expected(1, 2)
            assert pool.service.quarantine.ids == set(), "a text is no sample, of which one would be left out"
            assert ids_of(await pool.score(stream(7), 1)) == [7]

    asyncio.run(go())


def test_texts_that_nobody_waits_for_leave_the_queue_and_those_of_a_run_that_rolls_back_end_with_an_error() -> None:
    async def go() -> None:
        scene = Scene(slow={0})
        async with pool_of(scene, size=1) as pool:
            writing = asyncio.ensure_future(pool.write(asked(*range(5))))
            await until(lambda: pool.status()["in_flight"] == AT_A_TIME)
            writing.cancel()
            await asyncio.wait([writing])
            assert pool.status()["queue"] == 0
            others = asyncio.ensure_future(pool.write(asked(*range(5))))
            await until(lambda: pool.status()["queue"] > 0)
            await pool.cancel_all()
            with pytest.raises(RuntimeError, match="the text was cancelled"):
                await others
            assert told(await pool.write(asked(1))) == expected(1)

    asyncio.run(go())


def test_a_teacher_that_cannot_write_says_what_to_change() -> None:
    async def go() -> None:
        async with pool_of(Scene(), objective={"type": "jsd"}) as pool:
            with pytest.raises(ValueError, match=r"a text of pool teacher: .* set teacher.type=torch, which does both"):
                await pool.write(asked(0))

    asyncio.run(go())


def test_a_deadline_counts_the_texts_of_one_call_in_rounds() -> None:
    from actors.pools.continuing import Continuing, seconds_for
    from actors.pools.result_queue import ResultQueue
    from actors.pools.worker import Worker

    async def go() -> None:
        worker = Worker(0, FakeTeacher(Scene(), 0), ready=Ready(limits=EngineLimits(sequences=2, batched_tokens=1)))
        queue = ResultQueue(asyncio.get_running_loop().create_future())
        jobs = [Continuing(sample_id=-i, place=i, request=asked(0)[0], results=queue) for i in range(5)]
        assert seconds_for(jobs, worker, Faults(deadline_seconds=7, generator_seconds_per_token=0.5)) == 7 + 0.5 * 4 * 3

    asyncio.run(go())
