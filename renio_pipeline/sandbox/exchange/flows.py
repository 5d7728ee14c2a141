"""Generators and coroutines of the other side: local ones, so that whoever asks for their type is told the truth."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any

from renio_pipeline.sandbox.exchange import remote, remote_types

_KINDS = {"generator": Generator, "coroutine": Coroutine, "async generator": AsyncGenerator}


def kind_of(value: Any) -> str | None:
    """Which of these a value is. None for all else, such as objects of a class that is like one of them."""
    if isinstance(type(value), remote_types.RemoteType) or type(value).__module__ in ("program", "__main__"):
        return None
    return next((kind for kind, cls in _KINDS.items() if isinstance(value, cls)), None)


def made(kind: str, stub: Any, peer: Any) -> Any:
    """The local one for a remote object. Raises KeyError for an unknown kind."""
    return {"generator": _generator, "coroutine": _coroutine, "async generator": _async_generator}[kind](stub, peer)


def _generator(stub: Any, peer: Any) -> Generator[Any, Any, Any]:
    sent, thrown = None, None
    while True:
        yields, value = peer.ask("resume", stub, sent, thrown)
        if not yields:
            return value
        sent, thrown = None, None
        try:
            sent = yield value
        except GeneratorExit:
            peer.ask("close", stub)
            raise
        except BaseException as error:
            thrown = error


async def _coroutine(stub: Any, peer: Any) -> Any:
    return peer.ask("run", stub)


async def _async_generator(stub: Any, peer: Any) -> AsyncGenerator[Any, Any]:
    sent, thrown = None, None
    while True:
        if (value := peer.ask("step", stub, sent, thrown)) is remote.END:
            return
        sent, thrown = None, None
        try:
            sent = yield value
        except GeneratorExit:
            peer.ask("step", stub, None, None, True)
            raise
        except BaseException as error:
            thrown = error


class Loops:
    """Runs coroutines, also one while another waits for it. There is an event loop for each depth, and it stays."""

    def __init__(self) -> None:
        self._loops: list[Any] = []
        self._depth = 0

    def run(self, awaitable: Any) -> Any:
        """What awaiting it returns, or END for the end of an asynchronous iterator."""
        import asyncio  # slow to import, and hardly ever used

        if self._depth == len(self._loops):
            self._loops.append(asyncio.new_event_loop())
        outer, loop = asyncio._get_running_loop(), self._loops[self._depth]
        asyncio._set_running_loop(None)
        self._depth += 1
        try:
            return loop.run_until_complete(_awaited(awaitable))
        finally:
            self._depth -= 1
            asyncio._set_running_loop(outer)


async def _awaited(awaitable: Any) -> Any:
    try:
        return await awaitable
    except StopAsyncIteration:
        return remote.END
