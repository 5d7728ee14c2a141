"""The generator pool: dispatches prompts and streams responses back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.engines.generator import Ended, Failed, WriteRequest, Written, sampling_options
from actors.engines.result_batcher import SLACK
from actors.packed_messages import pack, unpack
from actors.pools.base import Pool
from actors.pools.jobs import Quarantined, SampleJob, Service, take_for
from actors.pools.result_queue import ResultQueue
from actors.pools.waiting import WorkerLost
from actors.pools.worker import Kind, Worker, is_loss
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.types import Prompt, Rollout

MAX_RESENDS = 3
SPARE = 0.25  # extra samples per replica, as a share of its slots, so that no slot waits for the driver
SPARE_SLACK = 0.2  # replaces ``SLACK`` then: a shorter delay than the extra samples fill


@dataclass(eq=False)
class Sending:
    """Samples that were sent to a replica together."""

    due: float = 0.0  # on the event loop's clock: by then one of them must have finished


@dataclass(eq=False, kw_only=True)
class Writing(SampleJob):
    temperature: float
    aborts: int = 0
    sending: Sending = field(default_factory=Sending)


class GeneratorPool(Pool):
    """Dispatches prompts to replicas and streams the responses back.

    A replica with work always has one pending call, which returns when responses finish. The next call sends the prompts that
    replace them. So a sample costs at most one call, and less if several finish together.

    A replica has at most as many samples as its engine runs concurrently, and gets more as they finish. If the next step's
    samples are generated ahead and a sync does not wait for those in flight, it has a few extra: results may then be delayed,
    and more of them arrive together. In a deterministic run each replica gets the samples whose ids map to its slot, all at
    once and in order, so that batches repeat exactly.
    """

    def __init__(self, kind: Kind, size: int, service: Service) -> None:
        super().__init__(kind, size, service)
        self._sampling_options = sampling_options(self.config.sampling, self.config.temperature)
        self._spare = spare = bool(self.config.max_staleness) and self.config.in_flight == "keep"
        self._slack = SPARE_SLACK if spare else SLACK
        faults = self.config.faults
        responses = 2 if spare else 1  # an extra sample may have to wait for a slot for one response's time
        self._seconds = (
            faults.deadline_seconds + faults.generator_seconds_per_token * self.config.max_response_tokens * responses
        )

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        """Yield each response when it finishes. A quarantined sample has none."""
        results = ResultQueue(self.workers.failing)
        jobs = {p.sample_id: Writing(prompt=p, results=results, temperature=temperature) for p in prompts}
        self.queue += sorted(jobs.values(), key=lambda j: j.sample_id) if self.config.deterministic else jobs.values()
        self.dispatch()
        left = len(jobs)
        try:
            while left:
                for found in await results.take():
                    left -= 1
                    if not isinstance(found, Quarantined):
                        yield found
        finally:
            results.close()
            self.withdraw(list(jobs.values()))

    def share(self, worker: Worker, fair: int) -> list[Writing]:
        if worker.alone:
            return []
        if self.config.deterministic:
            return self._own(worker)
        most = min(self._most(worker), fair) - len(worker.jobs)
        if most <= 0:
            return []
        jobs, worker.alone = self._take(worker, self.queue, most)
        return jobs

    def _take(self, worker: Worker, queue: list[Writing], most: int) -> tuple[list[Writing], bool]:
        run_alone, idle = self.poison_samples.must_run_alone, not worker.jobs
        return take_for(queue, lambda job: True, most, run_alone=run_alone, idle=idle)

    def _most(self, worker: Worker) -> int:
        """How many samples a replica may have in flight."""
        assert worker.ready.limits is not None, "a generator has an engine"
        slots = worker.ready.limits.sequences
        return slots + math.ceil(SPARE * slots) * self._spare

    def _own(self, worker: Worker) -> list[Writing]:
        own = [job for job in self.queue if job.sample_id % self.workers.target == worker.slot]
        jobs, worker.alone = self._take(worker, own, len(own))
        self.queue = [job for job in self.queue if job not in jobs]
        return jobs

    async def work(self, worker: Worker, jobs: Sequence[Writing]) -> None:
        """Send these jobs, if any, and handle the responses that finished, which may be of earlier jobs."""
        sending = Sending(asyncio.get_running_loop().time() + self._seconds)
        for job in jobs:
            job.sending = sending
        try:
            ended = await self._answer(worker, worker.actor.exchange.remote(pack([self._request(job) for job in jobs])))
        finally:
            worker.calls -= 1
        if worker.state != "gone":  # otherwise it was given up, and its samples were sent to other workers
            for each in ended:
                self._came(worker, each)

    def begin(self, worker: Worker, jobs: Sequence[Writing]) -> None:
        worker.calls += 1
        super().begin(worker, jobs)

    def worked(self, worker: Worker) -> None:
        if worker.jobs and not worker.calls and worker.state != "gone":
            self.begin(worker, [])

    def fail(self, worker: Worker, jobs: Sequence[Writing], error: Exception) -> None:
        """Fail all the worker's jobs: the call's answer, which is lost, may have held any of their responses."""
        super().fail(worker, list(worker.jobs.values()), error)

    async def _answer(self, worker: Worker, call: Any) -> list[Ended]:
        clock = asyncio.get_running_loop().time
        while True:
            due = min((job.sending.due for job in worker.jobs.values()), default=clock() + self._seconds)
            try:
                async with asyncio.timeout_at(due):  # wait_for would swallow a cancellation that arrives with the answer
                    ended: list[Ended] = unpack(await call)
                    return ended
            except TimeoutError:
                if any(job.sending.due <= clock() for job in worker.jobs.values()):
                    raise WorkerLost(f"no response finished in {self._seconds:g} s") from None

    def _came(self, worker: Worker, ended: Ended) -> None:
        job: Writing | None = worker.jobs.get(ended.sample_id)
        if job is None:
            return  # it failed together with the call that sent it
        job.sending.due = asyncio.get_running_loop().time() + self._seconds
        if isinstance(ended, Failed):
            if is_loss(ended.error):
                raise ended.error
            super().fail(worker, [job], ended.error)
        elif ended.stop_reason is not None or not job.wanted:
            self.finish(worker, job, None if ended.stop_reason is None else _rollout(job, ended, worker.name))
        else:
            self._aborted(worker, job)

    def _aborted(self, worker: Worker, job: Writing) -> None:
        worker.jobs.pop(job.sample_id, None)
        worker.alone = False
        job.aborts += 1
        if job.aborts > MAX_RESENDS:
            job.results.put(RuntimeError(f"sample {job.sample_id} was aborted {job.aborts} times by its generator"))
        else:
            self.queue.append(job)
            self.schedule_dispatch()

    def _request(self, job: Writing) -> WriteRequest:
        sampling = self.config.sampling
        return WriteRequest(
            sample_id=job.sample_id,
            prompt_ids=job.prompt.student_ids,
            seed=sample_seed(self.config.seed, job.sample_id),
            max_tokens=self.config.max_response_tokens,
            temperature=job.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            options=self._sampling_options,
            slack=self._slack,
        )


def _rollout(job: Writing, written: Written, replica: str) -> Rollout:
    assert written.stop_reason is not None
    return Rollout(
        prompt=job.prompt,
        token_ids=written.token_ids,
        logprobs=written.logprobs,
        stop_reason=written.stop_reason,
        version=written.version,
        last_version=written.last_version,
        replica=replica,
        times=(job.sent, time.perf_counter()),
    )
