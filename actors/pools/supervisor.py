"""The workers of one pool: started, watched, replaced, and resized while the run continues.

    waiting ──> starting ──> ready ──────────> serving ──> leaving ──> gone
    (for its    (loads its   (a sync brings    (gets       (ends its
    resources)  model)       it the weights)   samples)    samples)

A slot is a numbered place in the pool. Each slot has one task, which starts a worker, watches it, and starts the next one when
it dies or stops answering. The jobs that a lost worker had in flight return to the dispatcher through ``on_lost``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ray.exceptions import ActorDiedError

from actors.cluster.processes import last_lines
from actors.errors import GONE, EngineFailed, plain_reason
from actors.pools.start_errors import constructor_error, not_started
from actors.pools.waiting import PATIENCE_SECONDS, WorkerLost, answer, guarded, heartbeat, new_failure
from actors.pools.worker import Kind, State, Worker
from renio_pipeline.config.schema import Faults
from renio_pipeline.stages.faults import Slots


class Workers:
    """Usage: ``open()``, ``await settled()``; then ``serving`` has the workers that may get jobs. ``resize`` at any time."""

    def __init__(
        self,
        kind: Kind,
        size: int,
        faults: Faults,
        *,
        slots: Slots,
        note: Callable[[str], None],
        on_lost: Callable[[Worker, str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.kind, self.target, self.restarts = kind, size, 0
        self._faults, self._slots, self._note = faults, slots, note
        self._on_lost, self._on_change = on_lost, on_change
        self._workers: dict[int, Worker] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._served: set[int] = set()  # slots
        self.failure: asyncio.Future[None] | None = None  # fails with the error that ends the run
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []  # each waits for its condition

    def open(self) -> None:
        """Start a worker in each slot. Must be called in the run's event loop."""
        self.failure = new_failure()
        self.resize(self.target)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        for worker in self._workers.values():
            worker.lease.end(worker.pid)
        self._tasks, self._workers = {}, {}

    def resize(self, size: int) -> None:
        """Change the number of workers: new slots start at once, the highest ones leave when their work is done."""
        self.target = size
        for slot in range(size):
            if slot not in self._tasks or self._tasks[slot].done():
                self._tasks[slot] = asyncio.create_task(self._slot(slot))
        for slot, worker in self._workers.items():
            if slot >= size and worker.state in ("serving", "ready"):
                worker.state = "leaving"
            elif slot < size and worker.state == "leaving":
                worker.state = "serving" if slot in self._served else "ready"
        self.changed()

    @property
    def all(self) -> list[Worker]:
        return [self._workers[slot] for slot in sorted(self._workers)]

    @property
    def serving(self) -> list[Worker]:
        return [w for w in self.all if w.state == "serving"]

    @property
    def receivers(self) -> list[Worker]:
        """The workers that a weight sync must reach."""
        return [w for w in self.all if w.state in ("ready", "serving", "leaving")]

    def in_flight(self) -> int:
        return sum(len(w.jobs) for w in self.all)

    def serve(self, worker: Worker) -> None:
        """The worker has the current weights, and may get jobs."""
        if worker.state == "ready":
            worker.state = "serving" if worker.slot < self.target else "leaving"
            self._served.add(worker.slot)
            self.changed()

    @property
    def failing(self) -> asyncio.Future[None]:
        """A future that fails with the error that ends the run."""
        assert self.failure is not None, "open() comes first"
        return self.failure

    def progress(self, worker: Worker) -> None:
        """The worker finished a job."""
        worker.heard = time.monotonic()
        self._slots.progress(self.kind.name, worker.slot)

    def changed(self) -> None:
        """A worker's state or jobs have changed: dispatch, and wake those that wait for that."""
        self._on_change()
        self.tell()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the workers. Raises the error that ends the run."""
        while not condition():
            await guarded(self._when(condition), self.failing)

    async def settled(self, *, all_of_them: bool = False) -> None:
        """Wait until every slot has a worker or waits for resources, and at least one has a worker."""
        fine: tuple[State, ...] = ("ready", "serving") if all_of_them else ("ready", "serving", "waiting")

        def reached() -> bool:
            states = [w.state for w in self.all if w.slot < self.target]
            return len(states) == self.target and all(s in fine for s in states) and set(states) != {"waiting"}

        await self.until(reached)

    def tell(self) -> None:
        """Wake only the waiters whose condition is true, because this is called for every sample."""
        for worker in self._workers.values():
            worker.tell()
        self._waiting = [(condition, told) for condition, told in self._waiting if not told.done()]
        for condition, told in self._waiting:
            if condition():
                told.set_result(None)

    def _when(self, condition: Callable[[], bool]) -> asyncio.Future[None]:
        """A future that is done once the condition was true. The waiter must check again, as it may have changed since."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, told))
        return told

    async def _slot(self, slot: int) -> None:
        try:
            while slot < self.target:
                await self._life(slot)
        except Exception as error:
            assert self.failure is not None
            if not self.failure.done():
                self.failure.set_exception(error)
            self.tell()

    async def _life(self, slot: int) -> None:
        """The life of one worker, from start to end. Raises the error that ends the run."""
        if self.kind.turn is not None:
            await self.kind.turn()
            if slot >= self.target:
                return
        worker = self._workers[slot] = Worker(slot, self.kind.start(slot))
        try:
            await self._bring_up(worker)
            await self._watch(worker)
        except _Unwanted:
            pass
        except (WorkerLost, *GONE, EngineFailed) as error:
            if isinstance(error, ActorDiedError) and error.actor_init_failed and slot not in self._served:
                raise not_started(self.kind.name, slot, error) from error
            self._lost(worker, _reason(error))
        finally:
            self._workers.pop(slot, None)
            worker.state = "gone"
            worker.lease.end(worker.pid)
            self.changed()

    async def _bring_up(self, worker: Worker) -> None:
        await self._placed(worker)
        worker.state = "starting"
        self.changed()
        worker.ready = await answer(worker.actor.ready.remote(), self._faults.start_seconds, "loading its model")
        worker.pid = await answer(self.kind.ping(worker.actor), self._faults.start_seconds, "a ping")
        if self.kind.check is not None:
            await self.kind.check(worker)
        worker.state = "ready"
        self.changed()
        if self.kind.admit is None:
            self.serve(worker)
        else:
            await self.kind.admit(worker)
        self.changed()

    async def _placed(self, worker: Worker) -> None:
        asked, told = time.monotonic(), False
        while not worker.lease.placed():
            if not told and time.monotonic() - asked > PATIENCE_SECONDS:
                told = True
                others = len([w for w in self.all if w.state != "waiting"])
                self._note(
                    f"pool {self.kind.name}: replica {worker.slot} waits for resources that the cluster does not have; the run "
                    + (f"continues with {others}" if others else "waits with it, as the pool has no other")
                )
            await asyncio.sleep(0.05 if time.monotonic() - asked < 1 else 0.5)
            if worker.slot >= self.target:
                raise _Unwanted

    async def _watch(self, worker: Worker) -> None:
        """Return when the worker has left. Raises WorkerLost when it is lost."""
        beats = asyncio.create_task(
            heartbeat(lambda: self.kind.ping(worker.actor), self._faults.heartbeat_seconds, lambda: worker.heard)
        )
        try:
            await worker.over(beats)
            worker.state = "gone"  # at once: a resize may want the slot again, but this worker must not get jobs
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)

    def _lost(self, worker: Worker, short: str) -> None:
        was_leaving = worker.slot >= self.target
        worker.lose(short)
        self._note(f"pool {self.kind.name}: replica {worker.slot} is lost: {short}")
        self._workers.pop(worker.slot, None)
        self._on_lost(worker, short)
        if not was_leaving:
            self.restarts += 1
            self._slots.died(self.kind.name, worker.slot, time.monotonic(), short, last_lines(worker.pid))


def _reason(error: Exception) -> str:
    """One line."""
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        return f"it did not start: {constructor_error(error).splitlines()[0]}"
    return plain_reason(error)


class _Unwanted(Exception):
    """A worker that was never placed is not wanted any more."""
