"""Requests over several servers: spread by load, sent again where one fails, held while all are away. The servers are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import pytest

from renio_pipeline.served.client import LONGEST_PAUSE, Servers, pause
from renio_pipeline.served.faults import KillsServersError, RequestRefusedError
from renio_pipeline.types import ScoreRequest
from tests.fakes.teacher_server import FakeServer, served
from tests.unit.served.conftest import TEXTS, request_of, spec_of

T = TypeVar("T")
MOST_SECONDS = 60.0


def run(work: Coroutine[Any, Any, T]) -> T:
    async def within() -> T:
        async with asyncio.timeout(MOST_SECONDS):
            return await work

    return asyncio.run(within())


@asynccontextmanager
async def opened(*fakes: FakeServer, **changes: Any) -> AsyncIterator[Servers]:
    servers = Servers(spec_of(*fakes, **changes))
    await servers.open()
    try:
        yield servers
    finally:
        await servers.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def score(servers: Servers, count: int) -> None:
    """Each of the samples, and each with its own numbers."""
    found = await asyncio.gather(*(servers.score(request_of(i)) for i in range(count)))
    for i, table in enumerate(found):
        np.testing.assert_array_equal(table.token_ids[:, 0], request_of(i).response_ids)


def samples(fake: FakeServer) -> int:
    """Requests of samples that it answered."""
    return sum(tuple(ids) not in TEXTS for ids in fake.asked)


def test_requests_are_spread_and_no_server_has_more_than_it_may() -> None:
    async def go() -> None:
        async with (
            served(FakeServer(seconds=0.02), FakeServer(seconds=0.02)) as fakes,
            opened(*fakes, concurrency=3) as servers,
        ):
            await score(servers, 30)
        assert [samples(fake) > 5 for fake in fakes] == [True, True]
        assert max(fake.most_at_once for fake in fakes) <= max(3, 2 * len(TEXTS))

    run(go())


def test_a_slow_server_gets_fewer_requests() -> None:
    async def go() -> None:
        quick, slow = FakeServer(seconds=0.01), FakeServer(seconds=0.3)
        async with served(quick, slow), opened(quick, slow, concurrency=2) as servers:
            await score(servers, 40)
        assert samples(slow) < samples(quick) / 3

    run(go())


@pytest.mark.parametrize("fault", ["cut", "502", "503", "504", "404", "500", "429", "garbage"])
def test_a_request_that_a_server_fails_on_is_answered_all_the_same(fault: str) -> None:
    async def go() -> None:
        async with served(FakeServer(), FakeServer()) as fakes, opened(*fakes) as servers:
            for fake in fakes:
                fake.faults = [fault]
            await score(servers, 20)

    run(go())


def test_a_server_that_hangs_loses_its_requests_to_the_other() -> None:
    async def go() -> None:
        async with served(FakeServer(), FakeServer()) as fakes, opened(*fakes, timeout=0.5) as servers:
            fakes[0].faults = ["hang"] * 3
            await score(servers, 20)

    run(go())


def test_a_dead_servers_requests_go_to_the_other_and_it_comes_back() -> None:
    async def go() -> None:
        async with served(FakeServer(seconds=0.05), FakeServer(seconds=0.05)) as fakes, opened(*fakes) as servers:
            first = asyncio.create_task(score(servers, 40))
            await until(lambda: samples(fakes[0]) > 0)
            await fakes[0].stop()
            await first
            assert list(servers.standing.away) == [fakes[0].url.partition("://")[2]]
            await fakes[0].start()
            await until(lambda: servers.standing.up == 2)
            before = samples(fakes[0])
            await score(servers, 20)
            assert samples(fakes[0]) > before

    run(go())


def test_requests_wait_while_all_servers_are_away() -> None:
    async def go() -> None:
        async with served(FakeServer()) as (fake,), opened(fake) as servers:
            await fake.stop()
            scoring = asyncio.create_task(score(servers, 5))
            await until(lambda: not servers.standing.up)
            await asyncio.sleep(0.2)
            assert not scoring.done()
            assert servers.standing.seconds > 0
            assert "Cannot connect" in next(iter(servers.standing.away.values()))
            await fake.start()
            await scoring
            assert servers.standing.up == 1
            assert servers.standing.seconds == 0

    run(go())


def test_a_server_that_comes_back_with_another_model_stays_away() -> None:
    async def go() -> None:
        async with served(FakeServer(), FakeServer()) as fakes, opened(*fakes) as servers:
            await fakes[0].stop()
            await score(servers, 10)
            fakes[0].seed = 5
            await fakes[0].start()
            await until(lambda: any("another model" in why for why in servers.standing.away.values()))
            answered = samples(fakes[0])
            await score(servers, 10)
            assert samples(fakes[0]) == answered

    run(go())


def test_a_server_that_asks_for_patience_is_not_away() -> None:
    async def go() -> None:
        async with served(FakeServer()) as (fake,), opened(fake) as servers:
            fake.faults = ["429"] * 6
            await score(servers, 4)
            assert servers.standing.up == 1

    run(go())


def test_requests_that_are_refused_together_count_once() -> None:
    async def go() -> None:
        async with served(FakeServer(seconds=0.2)) as (fake,), opened(fake, concurrency=16) as servers:
            fake.faults = ["429"] * 16
            scoring = asyncio.create_task(score(servers, 16))
            await until(lambda: not fake.faults)
            await until(lambda: servers.standing.busy)
            assert servers._servers[0].failures == 1
            await scoring

    run(go())


def test_a_server_that_answers_with_another_shape_for_a_while_comes_back() -> None:
    async def go() -> None:
        async with served(FakeServer()) as (fake,), opened(fake) as servers:
            port = fake.port
            await fake.stop()
            scoring = asyncio.create_task(score(servers, 1))
            await until(lambda: not servers.standing.up)
            fake.faults = ["nulls"]
            await fake.start(port)
            await scoring
            assert not fake.faults

    run(go())


def test_a_request_that_is_refused_is_not_sent_again() -> None:
    async def go() -> None:
        async with served(FakeServer(), FakeServer()) as fakes, opened(*fakes) as servers:
            fakes[0].faults, fakes[1].faults = ["400"], ["400"]
            with pytest.raises(
                RequestRefusedError, match=r"sample 7: teacher: localhost:\d+: it answers 400 .* refused with 400"
            ):
                await servers.score(request_of(7))
            assert len(fakes[0].faults) + len(fakes[1].faults) == 1

    run(go())


def test_a_request_that_servers_cannot_answer_is_given_up() -> None:
    async def go() -> None:
        async with served(FakeServer()) as (fake,), opened(fake) as servers:
            fake.faults = ["500"] * 3
            with pytest.raises(
                RequestRefusedError, match=r"sample 7: teacher: 3 attempts failed, the last at .* refused with 500"
            ):
                await servers.score(request_of(7))

    run(go())


def test_a_request_with_which_servers_end_is_given_up_and_the_others_are_answered() -> None:
    async def go() -> None:
        poison = ScoreRequest(sample_id=9, prompt_ids=np.array([39, 2]), response_ids=np.array([1], np.int32))
        async with served(FakeServer(deadly={39}), FakeServer(deadly={39})) as fakes, opened(*fakes) as servers:
            others = asyncio.create_task(score(servers, 10))
            with pytest.raises(KillsServersError, match="sample 9: 4 times a server's connection ended with it"):
                await servers.score(poison)
            await others

    assert request_of(0).prompt_ids[0] != 39
    run(go())


def test_a_timeout_that_is_too_short_is_named() -> None:
    async def go() -> None:
        async with served(FakeServer(spared=TEXTS)) as (fake,), opened(fake, timeout=0.3) as servers:
            fake.faults = ["hang"] * 4
            with pytest.raises(RequestRefusedError, match=r"4 times no answer in teacher.timeout, 0.3 s; raise that"):
                await servers.score(request_of(1))

    run(go())


def test_figures_are_counted_by_server() -> None:
    async def go() -> None:
        async with served(FakeServer()) as (fake,), opened(fake) as servers:
            fake.faults = ["cut"]
            await score(servers, 3)
            label = {"server": fake.url.partition("://")[2]}
            value = servers.figures.registry.get_sample_value
            assert value("renio_server_answers_total", label) == 3
            assert value("renio_server_failures_total", label | {"why": "away"}) == 1
            assert value("renio_server_in_flight", label) == 0
            assert value("renio_server_up", label) == 1

    run(go())


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    first, last = [pause(0) for _ in range(50)], [pause(40) for _ in range(50)]
    assert len(set(first)) > 10
    assert max(first) < min(last) <= max(last) <= 1.5 * LONGEST_PAUSE
