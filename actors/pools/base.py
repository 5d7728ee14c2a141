"""What generator and teacher pools share: samples in flight, and what becomes of them when a worker is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import GetTimeoutError, RayTaskError

from actors.errors import GONE, EngineFailed
from actors.pools.result_queue import ResultQueue
from actors.pools.supervisor import Workers
from actors.pools.worker import Kind, Worker, WorkerLost, answer
from renio_pipeline.config import RunConfig
from renio_pipeline.run_dir.rejected import RejectedLog
from renio_pipeline.stages.engine_limits import EngineLimits
from renio_pipeline.stages.engine_text import EngineText
from renio_pipeline.stages.faults import Slots, Suspects
from renio_pipeline.types import Prompt

GATHER_SECONDS = 0.01
AGAIN_SECONDS = 1.0  # between two requests to stop
MOST_CONVICTIONS = 3  # in a row; from then on it is the worker that is broken


@dataclass(kw_only=True)
class Service:
    """What all pools of a run share."""

    config: RunConfig
    rejected: RejectedLog
    note: Callable[[str], None] = lambda text: None
    slots: Slots = field(default_factory=Slots)


class Rejected:
    """In the place of a result: the sample is set aside."""


@dataclass(eq=False, kw_only=True)
class Job:
    """One sample that somebody waits for."""

    prompt: Prompt
    results: ResultQueue  # gets a result, a Rejected, or an exception
    wanted: bool = True
    sent: float = 0.0  # when a worker got it, on the clock of ``renio_pipeline.types.Times``

    @property
    def sample_id(self) -> int:
        return self.prompt.sample_id


class Pool:
    """Queues jobs, and hands them to workers that serve. Subclasses say which jobs a worker gets, and how it does them.

    A worker that is lost gives its jobs back to the front of the queue, under the same sample ids. Of the samples, see
    ``renio_pipeline.stages.faults.Suspects``.
    """

    def __init__(self, kind: Kind, size: int, service: Service) -> None:
        self.service, self.config = service, service.config
        self.queue: list[Any] = []
        self.suspects = Suspects()
        self._holds = 0
        self._dispatch_scheduled = False
        self._convictions = 0  # of samples, since one was finished
        self._tasks: set[asyncio.Task[None]] = set()
        self.workers = Workers(
            kind, size, self.config.faults, slots=service.slots, note=service.note, on_lost=self._lost, on_change=self.dispatch
        )

    @property
    def name(self) -> str:
        return self.workers.kind.name

    @property
    def size(self) -> int:
        return len(self.workers.serving)

    @property
    def limits(self) -> EngineLimits | None:
        """Of its engines, which are built alike; None while none is there, and where they are no vLLM engines."""
        return next((w.ready.limits for w in self.workers.all if w.ready.limits), None)

    def status(self) -> dict[str, int]:
        """See ``renio_pipeline.stages.elastic_pool.ElasticPool``."""
        workers = self.workers
        states = [w.state for w in workers.all]
        return {
            "target": workers.target, "serving": states.count("serving"), "waiting": states.count("waiting"),
            "starting": states.count("starting") + states.count("ready"), "queue": len(self.queue),
            "in_flight": workers.in_flight(), "restarts": workers.restarts,
        }  # fmt: skip

    def resize(self, size: int) -> None:
        self.workers.resize(size)

    async def busy_seconds(self) -> dict[str, float]:
        """Of each worker that serves: the seconds that it has worked so far."""

        async def of(worker: Worker) -> tuple[str, float] | None:
            try:
                return f"{worker.name}/{worker.pid}", await answer(
                    self.workers.kind.beside(worker.actor.busy_seconds).remote(), 10, "busy_seconds"
                )
            except (WorkerLost, *GONE):
                return None

        return dict(filter(None, await asyncio.gather(*map(of, self.workers.serving))))

    async def engine_texts(self, run: str, seconds: float) -> dict[str, EngineText | None]:
        """See ``renio_pipeline.monitoring.engines.Measured``."""

        async def of(worker: Worker) -> tuple[str, EngineText | None]:
            labels = {"run": run, "pool": self.name, "replica": worker.name}
            try:
                return worker.name, await answer(worker.actor.engine_text.remote(labels), seconds, "engine_text")
            except Exception:  # whatever it is: the others' are worth having
                return worker.name, None

        return dict(await asyncio.gather(*map(of, self.workers.serving))) if self.workers.kind.engine else {}

    def dispatch(self, only: Worker | None = None) -> None:
        """Give work to whoever may take more: nobody but ``only``, where no other's state has changed."""
        if self._holds or not self.queue or not (serving := self.workers.serving):
            return
        fair = -(-(len(self.queue) + sum([len(w.jobs) for w in serving])) // len(serving))
        for worker in serving if only is None else [w for w in serving if w is only]:
            if not self.queue:
                return
            jobs = self.share(worker, fair)
            if jobs:
                now = time.perf_counter()
                for job in jobs:
                    worker.jobs[job.sample_id], job.sent = job, now
                self.begin(worker, jobs)

    def schedule_dispatch(self) -> None:
        """As ``dispatch``, in a moment, with whatever else comes by then: a batch is better than its first sample alone."""
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._dispatch_now)

    def _dispatch_now(self) -> None:
        self._dispatch_scheduled = False
        self.dispatch()

    def share(self, worker: Worker, fair: int) -> Sequence[Any]:
        """Take from ``queue`` what ``worker`` gets now. ``fair``: jobs for each, if each had as many of all there are."""
        raise NotImplementedError

    def begin(self, worker: Worker, jobs: Sequence[Any]) -> None:
        self._spawn(self._work(worker, jobs))

    async def work(self, worker: Worker, jobs: Sequence[Any]) -> None:
        """Have ``worker`` do the jobs; ``finish`` each. Raises WorkerLost or Ray's errors when it is lost."""
        raise NotImplementedError

    def worked(self, worker: Worker) -> None:
        """A call of ``work`` is over, and whoever may take more has got it."""

    def fail(self, worker: Worker, jobs: Sequence[Any], error: Exception) -> None:
        """Whoever waits for these of the worker's jobs gets the error."""
        for job in jobs:
            if worker.jobs.pop(job.sample_id, None) is not None and job.wanted:
                job.results.put(error)

    def dropped(self, jobs: Sequence[Any]) -> None:
        """These jobs of a worker will not be finished by it."""

    def finish(self, worker: Worker, job: Any, result: Any) -> None:
        """A job is done: whoever waits for it gets the result."""
        worker.jobs.pop(job.sample_id, None)
        worker.alone = False
        self.suspects.finished(job.sample_id)
        self._convictions = 0
        self.workers.progress(worker)
        if job.wanted:
            job.results.put(result)

    def withdraw(self, jobs: Sequence[Any]) -> None:
        """Nobody waits for these any more."""
        for job in jobs:
            job.wanted = False
        self.queue = [job for job in self.queue if job.wanted]
        self.workers.changed()

    @asynccontextmanager
    async def paused_dispatch(self, *, drain: bool) -> AsyncIterator[None]:
        """No job is handed out meanwhile; with ``drain``, begins when none is in flight."""
        self._holds += 1
        try:
            if drain:
                await self.workers.until(lambda: not self.workers.in_flight())
            yield
        finally:
            self._holds -= 1
            self.dispatch()

    async def cancel_all(self) -> None:
        """Forget everything, queued or in flight; the workers stop what they do."""
        self.withdraw([*self.queue, *(job for w in self.workers.all for job in w.jobs.values())])
        await asyncio.gather(*(self._cancel_on(w) for w in self.workers.receivers))

    def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self.workers.close()

    async def _cancel_on(self, worker: Worker) -> None:
        seconds = self.config.faults.deadline_seconds
        due = time.monotonic() + seconds
        try:
            while True:
                await answer(worker.actor.cancel_all.remote(), seconds, "cancel_all")
                # An actor need not begin calls in the order in which they were made: this one may have overtaken that of a job.
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_SECONDS):
                        await self.workers.until(lambda: not worker.jobs)
                if not worker.jobs:
                    return
                if time.monotonic() >= due:
                    raise WorkerLost("it did not stop its work in time")
        except (WorkerLost, *GONE, EngineFailed) as error:
            worker.lose(str(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, worker: Worker, jobs: Sequence[Any]) -> None:
        try:
            await self.work(worker, jobs)
        except Exception as error:
            if is_loss(error):
                worker.lose(str(error))  # and ``_lost`` gets what is left of its jobs
            else:
                self.fail(worker, jobs, error)
        finally:
            self.dispatch(worker)
            self.workers.tell()
        self.worked(worker)

    def _lost(self, worker: Worker, reason: str) -> None:
        jobs, worker.jobs = list(worker.jobs.values()), {}
        self.dropped(jobs)
        convicted = set(self.suspects.died([job.sample_id for job in jobs], worker.alone))
        self._convictions += len(convicted)
        if convicted and self._convictions <= MOST_CONVICTIONS:  # unless it says so of every sample
            self.workers.progress(worker)
        for job in jobs:
            if job.sample_id in convicted:
                self._reject(job, f"{reason}; its worker died of it twice while it had nothing else")
        self.queue[:0] = [job for job in jobs if job.wanted and job.sample_id not in convicted]
        worker.alone = False
        self.dispatch()

    def _reject(self, job: Any, reason: str) -> None:
        self.service.rejected.add(job.sample_id, reason, self.name, job.prompt.row.id)
        if job.wanted:
            job.results.put(Rejected())


def is_loss(error: BaseException) -> bool:
    """Whether an error of a remote call says that the worker, not the call, is to be given up."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, (*GONE, EngineFailed, WorkerLost, GetTimeoutError))


def take_for(
    queue: list[Any], fits: Callable[[Any], bool], most: int, *, suspect: Callable[[int], bool], idle: bool
) -> tuple[list[Any], bool]:
    """Take up to ``most`` jobs from the front of a queue that ``fits`` accepts, in order; stop at the first it does not.

    A suspect goes alone, and only to a worker that is idle. Returns the jobs, and whether they are one suspect.
    """
    taken: list[Any] = []
    i = 0
    while i < len(queue) and len(taken) < most:
        job = queue[i]
        if suspect(job.sample_id):
            if idle and not taken:
                return [queue.pop(i)], True
            i += 1
            continue
        if not fits(job):
            break
        taken.append(queue.pop(i))
    return taken, False
