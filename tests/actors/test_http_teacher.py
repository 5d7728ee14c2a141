"""The actor of a served teacher, its pool and the client together, over fake servers: in this process, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from actors.engines.http_teacher import HttpTeacher, served_spec
from actors.pools import served_teachers
from actors.pools.jobs import Service
from actors.pools.probe import Probe
from actors.pools.served_teachers import ServedTeacherPool
from actors.pools.worker import Kind
from renio_pipeline.config import RunConfig
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.served import client
from renio_pipeline.served.client import check_servers
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.types import ContinuationRequest, Prompt, Rollout, Row, TopK, Version
from tests.actors.test_teacher_texts import Method
from tests.fakes.stages import config_of
from tests.fakes.teacher_server import KEY, FakeServer, served

SAMPLES, K = 60, 4
PAYLOAD = {"type": "top_k_forward_kl", "k": K}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(served_teachers, "LOOK_SECONDS", 0.05)


class Local:
    """An actor in this process; also its own lease."""

    def __init__(self, teacher: HttpTeacher) -> None:
        self.teacher, self.actor = teacher, self

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.teacher, name)
        return _Two(method) if name == "score" else Method(method)

    def placed(self) -> bool:
        return True

    def end(self, pid: int) -> None:
        pass


class _Two(Method):
    """With two results, as ``num_returns=2`` makes of one."""

    def options(self, **_: Any) -> Any:
        return self

    def remote(self, *args: Any) -> Any:
        whole = super().remote(*args)

        async def part(place: int) -> Any:
            return (await whole)[place]

        return asyncio.ensure_future(part(0)), asyncio.ensure_future(part(1))


def run_of(*servers: FakeServer) -> tuple[RunConfig, Prepared]:
    teacher = {
        "model": "embedded:teacher",
        "type": "http",
        "dtype": "float32",
        "served_model": servers[0].model,
        "urls": [server.url for server in servers],
        "key_env": "TEACHER_KEY",
        "concurrency": 4,
    }
    config = config_of(teacher=teacher, objective=PAYLOAD)
    return config, prepare(config)


def like_the_demo(**more: Any) -> FakeServer:
    """A server whose model has the demo's vocabulary and tokenizer, and weights of its own."""
    prepared = prepare(config_of())

    def ids(text: str) -> list[int]:
        found: list[int] = prepared.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    return FakeServer(rows=prepared.vocab_size, context=128, key=KEY, tokenizer=ids, **more)


@asynccontextmanager
async def pool_of(config: RunConfig, prepared: Prepared) -> AsyncIterator[tuple[ServedTeacherPool, HttpTeacher, list[str]]]:
    notes: list[str] = []
    service = Service(config=config, quarantine=QuarantineLog(None, notes.append), note=notes.append)
    budget = PayloadBudget(2**40, 1, 0)
    budget.open(1)
    teacher = HttpTeacher(served_spec(config, prepared))
    kind = Kind(name="teacher", start=lambda slot: Local(teacher), engine=True, check=Probe(prepared, config, "").check)
    size, vocab = prepared.payload_token_bytes[""], prepared.vocab_size
    pool = ServedTeacherPool(kind, 1, service, budget, size, vocab_size=vocab)
    pool.workers.open()
    try:
        async with asyncio.timeout(90):
            await pool.workers.settled(all_of_them=True)
            yield pool, teacher, notes
    finally:
        pool.close()
        await teacher._servers.close()


async def rollouts(prepared: Prepared, count: int = SAMPLES) -> AsyncIterator[Rollout]:
    rng = np.random.default_rng(0)
    for i in range(count):
        ids = np.asarray(prepared.teacher_ids[i % len(prepared.teacher_ids)], np.int32)
        prompt = Prompt(sample_id=i, row=Row(id=str(i), problem=""), student_ids=ids, teacher_ids=ids)
        tokens = rng.integers(0, prepared.vocab_size, rng.integers(1, 12)).astype(np.int32)
        logprobs = np.zeros(len(tokens), np.float32)
        yield Rollout(prompt=prompt, token_ids=tokens, logprobs=logprobs, stop_reason="stop", version=Version(0, 0))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_every_sample_is_scored_once_while_servers_die_and_return() -> None:
    """One is stopped, then the other; both are away for a while, and come back."""

    async def go() -> None:
        async with served(like_the_demo(seconds=0.02), like_the_demo(seconds=0.02)) as servers:
            config, prepared = run_of(*servers)
            assert await check_servers(served_spec(config, prepared)) == []
            async with pool_of(config, prepared) as (pool, _, notes):
                before = [len(server.asked) for server in servers]
                scoring = asyncio.create_task(pool.score(rollouts(prepared), 1))
                await until(lambda: len(servers[0].asked) > before[0] + 5)
                await servers[0].stop()
                await until(lambda: len(servers[1].asked) > before[1] + 15)
                await servers[1].stop()
                await until(lambda: pool.status()["away"] == 1)
                assert not scoring.done()
                for server in servers:
                    await server.start()
                found = await scoring
                assert [s.rollout.sample_id for s in found] == list(range(SAMPLES))
                assert pool.status()["restarts"] == pool.status()["away"] == pool.workers.in_flight() == 0
                assert "no server answers" in notes[0]
                assert "servers answer again" in notes[1]
                for scored in found:
                    await numbers_are_those_of(servers[0], scored)

    asyncio.run(go())


async def numbers_are_those_of(server: FakeServer, scored: Any) -> None:
    rollout, scores = scored.rollout, scored.scores
    table: TopK = (await scores.payload)[rollout.sample_id]
    wanted = server.expected([*rollout.prompt.teacher_ids.tolist(), *rollout.token_ids.tolist()])[-len(rollout.token_ids) :]
    own = wanted[np.arange(len(rollout.token_ids)), rollout.token_ids]
    np.testing.assert_allclose(scores.logprobs, own, atol=1e-6)
    np.testing.assert_allclose(table.logprobs[:, 1:], -np.sort(-wanted, axis=1)[:, :K], atol=1e-6)
    assert scores.payload_bytes == table.token_ids.nbytes + table.logprobs.nbytes


def test_texts_are_written_and_counted_by_server() -> None:
    async def go() -> None:
        async with served(like_the_demo()) as (server,):
            config, prepared = run_of(server)
            async with pool_of(config, prepared) as (pool, teacher, _):
                prompt = np.asarray(prepared.teacher_ids[0], np.int32)
                asked = ContinuationRequest(prompt_ids=prompt, max_tokens=5, seed=0, n=2)
                ((one, other),) = await pool.write([asked])
                assert one.token_ids.tolist() == other.token_ids.tolist()
                assert len(one.token_ids) == 5
                (texts,) = (await pool.engine_texts("a-run", 10)).values()
                assert texts is not None
                assert 'pool="teacher"' in texts["renio_server_answers"][1]
                assert KEY not in str(texts)
                assert await teacher.busy_seconds() > 0

    asyncio.run(go())


def test_work_that_is_cancelled_leaves_nothing_behind() -> None:
    async def go() -> None:
        async with served(like_the_demo()) as (server,):
            config, prepared = run_of(server)
            async with pool_of(config, prepared) as (pool, teacher, _):
                server.seconds = 60.0
                scoring = asyncio.create_task(pool.score(rollouts(prepared), 1))
                await until(lambda: pool.workers.in_flight() == 4)
                await pool.cancel_all()
                scoring.cancel()
                assert pool.workers.in_flight() == 0
                server.seconds = 0.0
                assert len(await pool.score(rollouts(prepared, 5), 1)) == 5
                assert not teacher._tasks

    asyncio.run(go())
