"""One worker of a pool, what its pool's workers are, and waiting for it no longer than it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from ray.exceptions import GetTimeoutError, RayTaskError

from actors.errors import GONE, EngineFailed
from renio_pipeline.stages.engine_limits import Ready

T = TypeVar("T")
# Ray concurrency group for calls that never block, on actors that otherwise do one thing at a time. Collectives run in the
# default single-threaded group, so they cannot interleave.
CONTROL = "control"
State = Literal["waiting", "starting", "ready", "serving", "leaving", "gone"]


class WorkerLost(RuntimeError):
    """A worker died, or said nothing for too long. The text says which."""


class Lease(Protocol):
    """A worker's actor and the resources that it holds."""

    @property
    def actor(self) -> Any: ...

    def placed(self) -> bool:
        """Whether its resources are there."""
        ...

    def end(self, pid: int) -> None:
        """Kill the actor, whatever it does (``pid`` is its process, or 0 where that is not known), and free the resources."""
        ...


@dataclass(eq=False)
class Worker:
    slot: int
    lease: Lease
    state: State = "waiting"
    ready: Ready = field(default_factory=Ready)
    pid: int = 0
    jobs: dict[int, Any] = field(default_factory=dict)  # what it has in flight, by sample id
    calls: int = 0  # of it that are under way, where one asks for whatever has ended
    heard: float = 0.0  # when it last answered, ``time.monotonic()``
    alone: bool = False  # with one sample, which was in flight at two deaths
    _left: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _lost: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def actor(self) -> Any:
        return self.lease.actor

    @property
    def name(self) -> str:
        return str(self.slot)

    @property
    def has_left(self) -> bool:
        """Whether it is to go, and has done its work."""
        return self.state == "leaving" and not self.jobs

    async def during(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Await something of this worker. Raises WorkerLost as soon as it is counted as dead."""
        task = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait(futures(task, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise WorkerLost(self._lost.result())
            return await task
        finally:
            drop(task)

    def lose(self, reason: str) -> None:
        """Count it as dead from now on."""
        if not self._lost.done():
            self._lost.set_result(reason)
        self.state = "gone"

    def tell(self) -> None:
        """Its state or its jobs have changed: ``over`` looks again."""
        if self.has_left and not self._left.done():
            self._left.set_result(None)

    async def over(self, beats: asyncio.Future[None]) -> None:
        """Wait until it has left. Raises WorkerLost as soon as it is counted as dead, and what ``beats`` raises."""
        while not self.has_left:
            await asyncio.wait(futures(self._lost, beats, self._left), return_when=asyncio.FIRST_COMPLETED)
            if self._left.done():  # though it may have been called back since
                self._left = asyncio.get_running_loop().create_future()
            if self._lost.done():
                raise WorkerLost(self._lost.result())
            if beats.done():
                beats.result()  # raises


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a pool's workers are."""

    name: str  # of the pool
    start: Callable[[int], Lease]  # by slot
    admit: Callable[[Worker], Awaitable[None]] | None = None  # before it serves; None: it may as soon as it is ready
    check: Callable[[Worker], Awaitable[None]] | None = None  # raises WorkerLost for one that must not serve
    turn: Callable[[], Awaitable[None]] | None = None  # returns when one may start; None: at any time
    engine: bool = False  # its actors have a vLLM engine, which counts what it does
    group: str | None = None  # the concurrency group of what an actor that does one thing at a time answers beside it

    def beside(self, method: Any) -> Any:
        """An actor's method, to be answered whatever else the actor does."""
        return method if self.group is None else method.options(concurrency_group=self.group)

    def ping(self, actor: Any) -> Any:
        """A reference to the actor's process id."""
        return self.beside(actor.ping).remote()


def is_loss(error: BaseException) -> bool:
    """Whether the error of a remote call means that the worker is lost, rather than that this one call failed."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, (*GONE, EngineFailed, WorkerLost, GetTimeoutError))


def drop(task: asyncio.Future[Any]) -> None:
    """Nobody wants its result, nor its error, any more."""
    task.cancel()
    task.add_done_callback(lambda t: t.cancelled() or t.exception())


def futures(*of_any_kind: asyncio.Future[Any]) -> set[asyncio.Future[Any]]:
    return set(of_any_kind)


async def answer(ref: Any, seconds: float, what: str) -> Any:
    """A remote call's result. Raises WorkerLost if it does not come in time."""
    try:
        async with asyncio.timeout(seconds):  # wait_for swallows a cancellation that comes with the answer: beats would go on
            return await ref
    except TimeoutError:
        raise WorkerLost(f"no answer to {what} in {seconds:g} s") from None
