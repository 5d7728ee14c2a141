"""One worker of a pool, and what kind of workers a pool has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol, TypeVar

from ray.exceptions import GetTimeoutError, RayTaskError

from actors.errors import GONE, EngineFailed
from actors.pools.waiting import WorkerLost, guarded, new_failure
from renio_pipeline.stages.engine_limits import Ready

T = TypeVar("T")
# Ray concurrency group for calls that never block, on actors that otherwise do one thing at a time. Collectives run in the
# default single-threaded group, so they cannot interleave.
CONTROL = "control"
State = Literal["waiting", "starting", "ready", "serving", "leaving", "gone"]


class Lease(Protocol):
    """A worker's actor and the resources it holds."""

    @property
    def actor(self) -> Any: ...

    def placed(self) -> bool:
        """Whether its resources have been reserved."""
        ...

    def end(self, pid: int) -> None:
        """Kill the actor, whatever it is doing, and free the resources. ``pid``: its process id, or 0 if unknown."""
        ...


@dataclass(eq=False)
class Worker:
    slot: int
    lease: Lease
    state: State = "waiting"
    ready: Ready = field(default_factory=Ready)
    pid: int = 0
    jobs: dict[int, Any] = field(default_factory=dict)  # its jobs in flight, by sample id
    calls: int = 0  # pending calls, for workers whose calls return whatever has finished
    heard: float = 0.0  # when it last answered, ``time.monotonic()``
    alone: bool = False  # it runs one sample alone, which was in flight at two deaths
    _left: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _lost: asyncio.Future[None] = field(default_factory=new_failure)

    @property
    def actor(self) -> Any:
        return self.lease.actor

    @property
    def name(self) -> str:
        return str(self.slot)

    @property
    def has_left(self) -> bool:
        """Whether it is leaving and has finished its jobs."""
        return self.state == "leaving" and not self.jobs

    async def during(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Await something of this worker. Raises WorkerLost as soon as it counts as lost."""
        return await guarded(waiting, self._lost)

    def lose(self, reason: str) -> None:
        """Count the worker as lost from now on."""
        if not self._lost.done():
            self._lost.set_exception(WorkerLost(reason))
        self.state = "gone"

    def tell(self) -> None:
        """Its state or its jobs have changed: ``over`` checks again."""
        if self.has_left and not self._left.done():
            self._left.set_result(None)

    async def over(self, beats: asyncio.Future[NoReturn]) -> None:
        """Wait until it has left. Raises WorkerLost as soon as it counts as lost, and what ``beats`` raises."""
        while not self.has_left:
            changes: set[asyncio.Future[Any]] = {self._lost, beats, self._left}
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            if self._left.done():  # it may have been called back since
                self._left = asyncio.get_running_loop().create_future()
            for ended in (self._lost, beats):
                if ended.done():
                    ended.result()  # raises


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The kind of a pool's workers: how to start, check and admit them."""

    name: str  # of the pool
    start: Callable[[int], Lease]  # by slot
    admit: Callable[[Worker], Awaitable[None]] | None = None  # called before it serves; None: it serves as soon as it is ready
    check: Callable[[Worker], Awaitable[None]] | None = None  # raises WorkerLost for a worker that must not serve
    turn: Callable[[], Awaitable[None]] | None = None  # returns when a worker may start; None: at any time
    engine: bool = False  # its actors have a vLLM engine, which collects metrics
    group: str | None = None  # the concurrency group for calls that must not wait for the actor's work

    def concurrent(self, method: Any) -> Any:
        """An actor's method, to be answered concurrently with the actor's work."""
        return method if self.group is None else method.options(concurrency_group=self.group)

    def ping(self, actor: Any) -> Any:
        """A reference to the actor's process id."""
        return self.concurrent(actor.ping).remote()


def is_loss(error: BaseException) -> bool:
    """Whether the error of a remote call means that the worker is lost, rather than that this one call failed."""
    return isinstance(cause_of(error), (*GONE, EngineFailed, WorkerLost, GetTimeoutError))


def cause_of(error: BaseException) -> BaseException:
    """What a remote call raised in its actor; the error itself where that is not of an actor's code."""
    return error.cause if isinstance(error, RayTaskError) else error
