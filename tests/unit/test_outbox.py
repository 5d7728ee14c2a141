"""What has ended comes once, together where it ended together, and in time."""

from __future__ import annotations

import asyncio

from actors.outbox import LINGER_SECONDS, MOST_SLACK, Outbox, tick


def test_what_ended_together_comes_together_and_once() -> None:
    async def go() -> None:
        outbox: Outbox[int] = Outbox()
        taking = asyncio.create_task(outbox.take())
        await asyncio.sleep(0)
        outbox.put(1)
        outbox.put(2)
        assert await taking == [1, 2]
        outbox.put(3)
        assert await outbox.take() == [3]

    asyncio.run(go())


def test_a_later_caller_sends_an_earlier_one_home_with_nothing() -> None:
    async def go() -> None:
        outbox: Outbox[int] = Outbox()
        earlier = asyncio.create_task(outbox.take())
        await asyncio.sleep(0)
        later = asyncio.create_task(outbox.take())
        assert await asyncio.wait_for(earlier, 5) == []
        outbox.put(1)
        assert await asyncio.wait_for(later, 5) == [1]

    asyncio.run(go())


def test_an_answer_is_late_by_a_hundredth_of_what_it_took_at_most() -> None:
    assert [tick(took) for took in (0.0, 0.1, 0.39)] == [LINGER_SECONDS] * 3
    assert all(tick(took) <= took / 100 for took in (0.5, 1.0, 4.0, 60.0))
    assert tick(10**6) == MOST_SLACK
    assert all((tick(60.0) / tick(took)).is_integer() for took in (0.5, 1.0, 4.0))
