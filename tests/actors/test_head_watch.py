"""A head that is lost is said once, before Ray ends the driver, and one that comes back too."""

from __future__ import annotations

import ast
import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.cluster import head_watch
from actors.cluster.head_watch import watched_head
from renio_pipeline import cli
from tests.ray.ports import free_port


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "EVERY_SECONDS", 0.05)


def until(condition: Callable[[], bool]) -> None:
    """In the calling thread, which does nothing else meanwhile."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def head_at(port: int) -> socket.socket:
    """A server that lets anybody connect."""
    return socket.create_server(("127.0.0.1", port), backlog=100)


def test_a_head_that_is_lost_and_comes_back_is_a_line_each() -> None:
    port, notes = free_port(), list[str]()
    head = head_at(port)
    with watched_head(f"127.0.0.1:{port}", notes.append):
        time.sleep(0.3)
        assert notes == [], "it answered"
        head.close()
        until(lambda: len(notes) == 1)
        time.sleep(0.3)  # looks that find nothing new
        head = head_at(port)
        until(lambda: len(notes) == 2)
    head.close()
    time.sleep(0.3)
    lost, back = notes  # and nothing after the end
    assert lost.startswith(f"the head of the Ray cluster, 127.0.0.1:{port}, is lost")
    assert "--resume" in lost
    assert back.endswith("answers again")


def test_it_is_said_while_a_call_of_rays_blocks_the_event_loop() -> None:
    notes: list[str] = []

    async def blocked() -> None:
        until(lambda: bool(notes))

    with watched_head(f"127.0.0.1:{free_port()}", notes.append, "Then score again."):
        asyncio.run(blocked())
    assert notes[0].endswith("Ray ends this command. Then score again.")


def test_every_command_that_works_on_a_cluster_watches_its_head() -> None:
    """Those that only check return at once."""
    unwatched, watched = [], 0
    for file in sorted(Path(str(cli.__file__)).parent.glob("*.py")):
        for block in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.With)):
            begun = [ast.unparse(item) for item in block.items]
            if any("connection.connect(" in text for text in begun) and "asyncio.run(" in ast.unparse(block):
                fine = "watched_head(cluster.head," in ast.unparse(block)
                watched += fine
                unwatched += [] if fine else [file.name]
    assert not unwatched
    assert watched >= 5, "train, score, probe, arms, eval"
