"""A head that is lost is said once, before Ray ends the driver, and one that comes back too."""

from __future__ import annotations

import asyncio

import pytest

from actors.cluster import head_watch
from actors.cluster.head_watch import watch_head


async def until(notes: list[str], count: int) -> None:
    async with asyncio.timeout(30):
        while len(notes) < count:
            await asyncio.sleep(0.01)


def test_a_head_that_is_lost_and_comes_back_is_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "EVERY_SECONDS", 0.05)
    notes: list[str] = []

    async def go() -> None:
        head = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1")
        port = head.sockets[0].getsockname()[1]
        watch = asyncio.create_task(watch_head(f"127.0.0.1:{port}", notes.append))
        await asyncio.sleep(0.3)
        assert notes == [], "it answered"
        head.close()
        await head.wait_closed()
        await until(notes, 1)
        await asyncio.sleep(0.3)  # looks that find nothing new
        head = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
        await until(notes, 2)
        assert not watch.done()
        watch.cancel()
        head.close()

    asyncio.run(go())
    lost, back = notes
    assert lost.startswith("the head of the Ray cluster, 127.0.0.1:")
    assert "is lost" in lost
    assert "--resume" in lost
    assert back.endswith("answers again")
