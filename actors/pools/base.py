"""What generator and teacher pools share: the queue, dispatch to workers, and resending the samples of a lost worker."""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from actors.errors import GONE, EngineFailed, plain_reason
from actors.pools.jobs import Quarantined, Service
from actors.pools.supervisor import Workers
from actors.pools.waiting import WorkerLost, answer
from actors.pools.worker import Kind, Worker, is_loss
from renio_pipeline.stages.engine_limits import EngineLimits
from renio_pipeline.stages.engine_text import EngineText
from renio_pipeline.stages.faults import PoisonSamples

GATHER_SECONDS = 0.01  # how long a scheduled dispatch waits for more jobs
CANCEL_AGAIN_SECONDS = 1.0  # between two calls of ``cancel_all``
MOST_QUARANTINED = 3  # samples in a row; beyond that the workers are at fault


class Pool(abc.ABC):
    """Queues jobs and dispatches them to serving workers. Subclasses choose a worker's jobs and how it does them.

    The jobs of a lost worker go back to the front of the queue under the same sample ids, unless one of them kills its workers:
    see ``renio_pipeline.stages.faults.PoisonSamples``.
    """

    def __init__(self, kind: Kind, size: int, service: Service) -> None:
        self.service, self.config = service, service.config
        self.queue: list[Any] = []
        self.poison_samples = PoisonSamples()
        self._holds = 0
        self._dispatch_scheduled = False
        self._quarantined = 0  # samples quarantined since one was finished
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
        """The limits of the pool's engines, which are built alike. None before the first is ready, and without vLLM engines."""
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
        """The seconds that each serving worker has worked so far, by ``worker/pid``."""

        async def of(worker: Worker) -> tuple[str, float] | None:
            try:
                return f"{worker.name}/{worker.pid}", await answer(
                    self.workers.kind.concurrent(worker.actor.busy_seconds).remote(), 10, "busy_seconds"
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
            except Exception:  # best effort: one replica's failure must not hide the others' metrics
                return worker.name, None

        return dict(await asyncio.gather(*map(of, self.workers.serving))) if self.workers.kind.engine else {}

    def dispatch(self, only: Worker | None = None) -> None:
        """Send jobs to every worker that can take more, or to ``only`` where no other worker's state has changed."""
        if self._holds or not self.queue or not (serving := self.workers.serving):
            return
        fair = -(-(len(self.queue) + sum([len(w.jobs) for w in serving])) // len(serving))  # noqa: C419 - for every sample, and a list is faster
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
        """Dispatch in ``GATHER_SECONDS``, together with what arrives by then: a batch is better than its first sample alone."""
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._dispatch_now)

    def _dispatch_now(self) -> None:
        self._dispatch_scheduled = False
        self.dispatch()

    @abc.abstractmethod
    def share(self, worker: Worker, fair: int) -> Sequence[Any]:
        """Take from ``queue`` what ``worker`` gets now. ``fair`` is the number of jobs per worker if all had equally many."""

    def begin(self, worker: Worker, jobs: Sequence[Any]) -> None:
        self._spawn(self._work(worker, jobs))

    @abc.abstractmethod
    async def work(self, worker: Worker, jobs: Sequence[Any]) -> None:
        """Have ``worker`` do the jobs, and call ``finish`` for each. Raises WorkerLost or Ray's errors if it is lost."""

    def worked(self, worker: Worker) -> None:  # noqa: B027  only some pools need it
        """Called after a call of ``work`` has returned and the worker has been given more jobs."""

    def fail(self, worker: Worker, jobs: Sequence[Any], error: Exception) -> None:
        """Pass the error to the callers that wait for these jobs of the worker."""
        for job in jobs:
            if worker.jobs.pop(job.sample_id, None) is not None and job.wanted:
                job.results.put(error)
        worker.alone = worker.alone and bool(worker.jobs)

    def dropped(self, jobs: Sequence[Any]) -> None:  # noqa: B027
        """Called when a worker will not finish these jobs, which it had in flight."""

    def finish(self, worker: Worker, job: Any, result: Any) -> None:
        """A job is done: pass the result to the caller that waits for it."""
        worker.jobs.pop(job.sample_id, None)
        worker.alone = False
        self.poison_samples.finished(job.sample_id)
        self._quarantined = 0
        self.workers.progress(worker)
        if job.wanted:
            job.results.put(result)

    def withdraw(self, jobs: Sequence[Any]) -> None:
        """Nobody waits for these jobs any more."""
        for job in jobs:
            job.wanted = False
        self.queue = [job for job in self.queue if job.wanted]
        self.workers.changed()

    @asynccontextmanager
    async def paused_dispatch(self, *, drain: bool) -> AsyncIterator[None]:
        """Dispatch no job within the block. ``drain``: first wait until no job is in flight."""
        self._holds += 1
        try:
            if drain:
                await self.workers.until(lambda: not self.workers.in_flight())
            yield
        finally:
            self._holds -= 1
            self.dispatch()

    async def cancel_all(self) -> None:
        """Forget all jobs, queued or in flight, and stop the workers' work on them."""
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
                # An actor may begin calls in another order than they were made: this one may have overtaken a job's.
                with suppress(TimeoutError):
                    async with asyncio.timeout(CANCEL_AGAIN_SECONDS):
                        await self.workers.until(lambda: not worker.jobs)
                if not worker.jobs:
                    return
                if time.monotonic() >= due:
                    raise WorkerLost("it did not cancel its work in time")
        except (WorkerLost, *GONE, EngineFailed) as error:
            worker.lose(plain_reason(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, worker: Worker, jobs: Sequence[Any]) -> None:
        try:
            await self.work(worker, jobs)
        except Exception as error:
            if is_loss(error):
                worker.lose(plain_reason(error))  # the supervisor then calls ``_lost`` with the remaining jobs
            else:
                self.fail(worker, jobs, error)
        finally:
            self.dispatch(worker)
            self.workers.tell()
        self.worked(worker)

    def _lost(self, worker: Worker, reason: str) -> None:
        jobs, worker.jobs = list(worker.jobs.values()), {}
        self.dropped(jobs)
        quarantined = set(self.poison_samples.died([job.sample_id for job in jobs], worker.alone))
        self._quarantined += len(quarantined)
        if quarantined and self._quarantined <= MOST_QUARANTINED:
            self.workers.progress(worker)  # the sample was at fault, so this death does not count against the slot
        for job in jobs:
            if job.sample_id in quarantined:
                self._quarantine(job, f"two workers died while running only this sample; the second: {reason}")
        self.queue[:0] = [job for job in jobs if job.wanted and job.sample_id not in quarantined]
        worker.alone = False
        self.dispatch()

    def _quarantine(self, job: Any, reason: str) -> None:
        self.service.quarantine.add(job.sample_id, reason, self.name, job.prompt.row.id)
        if job.wanted:
            job.results.put(Quarantined())
