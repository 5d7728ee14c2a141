"""What has ended comes once, together where it ended together, and in time."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from actors.engines.result_batcher import LINGER_SECONDS, MOST_SLACK, ResultBatcher, send_time


def test_what_ended_together_comes_together_and_once() -> None:
    async def go() -> None:
        batcher: ResultBatcher[int] = ResultBatcher()
        taking = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        batcher.put(1)
        batcher.put(2)
        assert await taking == [1, 2]
        batcher.put(3)
        assert await batcher.take() == [3]

    asyncio.run(go())


def test_a_later_caller_sends_an_earlier_one_home_with_nothing() -> None:
    async def go() -> None:
        batcher: ResultBatcher[int] = ResultBatcher()
        earlier = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        later = asyncio.create_task(batcher.take())
        assert await asyncio.wait_for(earlier, 5) == []
        batcher.put(1)
        assert await asyncio.wait_for(later, 5) == [1]

    asyncio.run(go())


def test_a_short_ones_answer_does_not_wait_for_a_long_ones() -> None:
    async def go() -> float:
        batcher: ResultBatcher[int] = ResultBatcher()
        taking = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        batcher.put(1, took=10**6)
        began = time.perf_counter()
        batcher.put(2, took=0.1)
        assert await taking == [1, 2]
        return time.perf_counter() - began

    assert min(asyncio.run(go()) for _ in range(20)) < 10 * LINGER_SECONDS


def test_what_ends_between_two_calls_leaves_at_its_moment_too() -> None:
    async def go() -> None:
        batcher: ResultBatcher[int] = ResultBatcher()
        batcher.put(1, took=2.0)
        taking = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        batcher.put(2, took=2.0)
        assert await taking == [1, 2]
        taking = asyncio.create_task(batcher.take())
        await asyncio.sleep(0)
        assert not taking.done()
        taking.cancel()

    asyncio.run(go())


@pytest.mark.parametrize("slack", [0.01, 0.2])
def test_an_answer_is_late_by_its_share_of_what_it_took_at_most(slack: float) -> None:
    moments = time.time() + np.random.default_rng(0).uniform(0, 10, 1000)
    for took in (0.0, 0.1, 0.39, 0.5, 1.0):
        late = [send_time(now, took, slack) - now for now in moments]
        assert min(late) > -1e-6
        assert max(late) < max(LINGER_SECONDS, took * slack) + 1e-6
    assert max(send_time(now, 10**6, slack) - now for now in moments) < MOST_SLACK + 1e-6


def test_short_answers_leave_with_long_ones() -> None:
    """Of those that end within 50 ms: at no more moments than the shortest ones of them need."""
    ends = 1.8e9 + np.linspace(0.001, 0.049, 40)
    long, short = ({send_time(now, took) for now in ends} for took in (6.4, 1.6))
    assert len(long) <= 2
    assert len(long | short) <= 5 < len({send_time(now, 0.0) for now in ends})
