"""The guarded wait and the heartbeat that pools and the trainer share."""

from __future__ import annotations

import asyncio
import time

import pytest

from actors.pools import waiting
from actors.pools.waiting import WorkerLost, answer, guarded, heartbeat, new_failure


def test_a_guarded_wait_ends_with_its_result_or_as_soon_as_the_failure_comes() -> None:
    async def both() -> bool:
        failure = new_failure()
        assert await guarded(asyncio.sleep(0, "result"), failure) == "result"
        cancelled = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

        asyncio.get_running_loop().call_later(0.05, failure.set_exception, WorkerLost("dead"))
        with pytest.raises(WorkerLost, match="dead"):
            await guarded(work(), failure)
        await asyncio.sleep(0)
        with pytest.raises(WorkerLost, match="dead"):
            await guarded(work(), failure)  # whoever waits later learns it too
        return cancelled.is_set()

    began = time.monotonic()
    assert asyncio.run(both())
    assert time.monotonic() - began < 10


def test_an_error_of_what_is_awaited_is_passed_on() -> None:
    async def wait() -> None:
        async def work() -> None:
            raise KeyError("k")

        await guarded(work(), new_failure())

    with pytest.raises(KeyError):
        asyncio.run(wait())


def test_an_answer_that_does_not_come_in_time_is_a_loss() -> None:
    with pytest.raises(WorkerLost, match=r"no answer to a probe in 0\.05 s"):
        asyncio.run(answer(asyncio.sleep(60), 0.05, "a probe"))


@pytest.mark.parametrize("working", [False, True])
def test_a_heartbeat_pings_only_who_is_not_heard_of_otherwise(monkeypatch: pytest.MonkeyPatch, working: bool) -> None:
    monkeypatch.setattr(waiting, "PING_SECONDS", 0.05)
    pings = 0

    async def ping() -> None:
        nonlocal pings
        pings += 1
        if pings == 3:
            await asyncio.sleep(60)

    async def beat() -> None:
        await heartbeat(ping, 0.3, time.monotonic if working else lambda: 0.0)

    if working:
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(beat(), 0.5))
        assert pings == 1
    else:
        with pytest.raises(WorkerLost, match=r"no answer to a ping in 0\.3 s"):
            asyncio.run(beat())
        assert pings == 3
