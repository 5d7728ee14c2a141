"""The pool of a teacher that is served elsewhere: its replicas have no model, and its servers may all be away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from actors.pools.scoring import Batch, Scoring
from actors.pools.teachers import TeacherPool
from actors.pools.waiting import WorkerLost, answer
from actors.pools.worker import Kind, Worker, cause_of
from renio_pipeline.served.faults import MOST_CUTS, KillsServersError

LOOK_SECONDS = 1.0  # between two looks at a replica's servers, while a call of its is late
MOST_QUARANTINED = 3  # samples in a row with which servers ended; beyond that the servers are at fault
NO_BOUND = 2**62


class ServedTeacherPool(TeacherPool):
    """Each response is a call of its own, so that a slow one delays no other; a replica has as many as its servers may.

    While no server of a replica answers, its calls wait, however long that is, and the user is told.
    """

    def __init__(self, kind: Kind, *args: Any, **options: Any) -> None:
        self._away: set[int] = set()  # slots of replicas none of whose servers answers
        self._in_a_row = 0
        super().__init__(replace(kind, check=self._once_up(kind.check)), *args, **options)

    def _once_up(self, check: Callable[[Worker], Awaitable[None]] | None) -> Callable[[Worker], Awaitable[None]]:
        """The check of a replica that starts, as soon as a server answers it: a replica may be replaced while all are away."""

        async def wait_and_check(worker: Worker) -> None:
            while not (standing := await self._standing(worker)).up:
                self._tell(worker, standing)
                await asyncio.sleep(LOOK_SECONDS)
            self._tell(worker, standing)
            if check is not None:
                await check(worker)

        return wait_and_check

    def status(self) -> dict[str, int]:
        """With ``away``: replicas none of whose servers answers."""
        return super().status() | {"away": len(self._away & {worker.slot for worker in self.workers.all})}

    def _batch(self, worker: Worker, *, idle: bool) -> list[Scoring]:
        assert worker.ready.limits is not None, "a replica says how many requests its servers may have"
        room = worker.ready.limits.sequences - len(worker.jobs)
        queue = [job for job in self.queue if isinstance(job, Scoring)] if self._calls_to_write else self.queue
        return self._take(worker, queue, Batch(self._budget, NO_BOUND), room, idle=idle)

    def begin(self, worker: Worker, jobs: Sequence[Any]) -> None:
        for job in jobs:
            super().begin(worker, [job])

    async def answered(self, worker: Worker, ref: Any, seconds: float, what: str) -> Any:
        """As ``answer``, but several servers may be late, and time in which none takes requests does not count."""
        call = asyncio.ensure_future(ref)
        clock = asyncio.get_running_loop().time
        due = clock() + seconds + MOST_CUTS * self._section.timeout
        while not (await asyncio.wait([call], timeout=LOOK_SECONDS))[0]:
            standing = await self._standing(worker)
            if not standing.up or standing.busy:
                due += LOOK_SECONDS
            self._tell(worker, standing)
            if clock() >= due:
                raise WorkerLost(f"no answer to {what} in {seconds:g} s")
        if worker.slot in self._away:
            self._tell(worker, await self._standing(worker))
        return call.result()

    async def _standing(self, worker: Worker) -> Any:
        return await answer(worker.actor.standing.remote(), self.config.faults.heartbeat_seconds, "a look at its servers")

    def _tell(self, worker: Worker, standing: Any) -> None:
        if not standing.up and worker.slot not in self._away:
            self._away.add(worker.slot)
            why = "; ".join(f"{server}: {reason}" for server, reason in standing.away.items())
            waiting = len(self.queue) + len(worker.jobs)
            self.service.note(f"pool {self.name}: no server answers, and {waiting} samples wait for one: {why}")
        elif standing.up and worker.slot in self._away:
            self._away.discard(worker.slot)
            self.service.note(f"pool {self.name}: {standing.up} of {standing.up + len(standing.away)} servers answer again")

    def finish(self, worker: Worker, job: Any, result: Any) -> None:
        self._in_a_row = 0
        super().finish(worker, job, result)

    def fail(self, worker: Worker, jobs: Sequence[Any], error: Exception) -> None:
        cause = cause_of(error)
        if not isinstance(cause, KillsServersError) or self._in_a_row >= MOST_QUARANTINED:
            super().fail(worker, jobs, cause if isinstance(cause, Exception) else error)
            return
        self._in_a_row += 1
        for job in jobs:
            if worker.jobs.pop(job.sample_id, None) is not None:
                self.dropped([job])
                self._quarantine(job, str(cause))
        worker.alone = worker.alone and bool(worker.jobs)
