"""The generator pool, as the step loop sees it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.engines.generator import Ended, Failed, WriteRequest, Written
from actors.engines.result_batcher import SLACK
from actors.packed_messages import pack, unpack
from actors.pools.base import Pool
from actors.pools.jobs import Job, Quarantined, Service, take_for
from actors.pools.result_queue import ResultQueue
from actors.pools.waiting import WorkerLost
from actors.pools.worker import Kind, Worker, is_loss
from renio_pipeline.types import Prompt, Rollout

MAX_RESENDS = 3
SPARE = 0.25  # of a replica's slots: samples that it has beyond them, so that no slot waits for the driver
SPARE_SLACK = 0.2  # that answers may have then, instead of ``SLACK``: less than the spare samples fill


def sample_seed(run_seed: int, sample_id: int) -> int:
    """A seed of one's own for every sample of every run."""
    digest = hashlib.blake2b(f"{run_seed}/{sample_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


@dataclass(eq=False)
class Sending:
    """Samples that a replica got together."""

    due: float = 0.0  # of the loop's clock: one of them must have ended by then


@dataclass(eq=False, kw_only=True)
class Writing(Job):
    temperature: float
    aborts: int = 0
    sending: Sending = field(default_factory=Sending)


class GeneratorPool(Pool):
    """Dispatches prompts to replicas and streams the responses back.

    A replica with work always has a call that waits for the next response to end: its answer brings that, and the next call
    takes along the prompts that come in its place. So a sample costs a call, and less where several end together.

    A replica has at most as many samples as its engine computes at a time, and gets more as they end. Where the next step's
    are written already and a sync does not wait for what is in flight, it has a few to spare: answers may then take their
    time, and more of them come together. In a deterministic run each replica gets the samples of its number, all at once and
    in order, so that batches repeat exactly.
    """

    def __init__(self, kind: Kind, size: int, service: Service) -> None:
        super().__init__(kind, size, service)
        self._spare = spare = bool(self.config.max_staleness) and self.config.in_flight == "keep"
        self._slack = SPARE_SLACK if spare else SLACK
        faults = self.config.faults
        responses = 2 if spare else 1  # one after another, if a sample has to wait for a slot
        self._seconds = (
            faults.deadline_seconds + faults.generator_seconds_per_token * self.config.max_response_tokens * responses
        )

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        """Yield each response as it ends. A sample that is rejected has none."""
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
        """Samples that a replica may have."""
        assert worker.ready.limits is not None, "a generator has an engine"
        slots = worker.ready.limits.sequences
        return slots + math.ceil(SPARE * slots) * self._spare

    def _own(self, worker: Worker) -> list[Writing]:
        own = [job for job in self.queue if job.sample_id % self.workers.target == worker.slot]
        jobs, worker.alone = self._take(worker, own, len(own))
        self.queue = [job for job in self.queue if job not in jobs]
        return jobs

    async def work(self, worker: Worker, jobs: Sequence[Writing]) -> None:
        """Send these, if any, and take what has ended, which need not be of them."""
        sending = Sending(asyncio.get_running_loop().time() + self._seconds)
        for job in jobs:
            job.sending = sending
        try:
            ended = await self._answer(worker, worker.actor.exchange.remote(pack([self._request(job) for job in jobs])))
        finally:
            worker.calls -= 1
        if worker.state != "gone":  # else it was given up, and what it had is somebody else's
            for each in ended:
                self._came(worker, each)

    def begin(self, worker: Worker, jobs: Sequence[Writing]) -> None:
        worker.calls += 1
        super().begin(worker, jobs)

    def worked(self, worker: Worker) -> None:
        if worker.jobs and not worker.calls and worker.state != "gone":
            self.begin(worker, [])

    def fail(self, worker: Worker, jobs: Sequence[Writing], error: Exception) -> None:
        """A call's own error: nobody knows what the answer would have brought."""
        super().fail(worker, list(worker.jobs.values()), error)

    async def _answer(self, worker: Worker, call: Any) -> list[Ended]:
        clock = asyncio.get_running_loop().time
        while True:
            due = min((job.sending.due for job in worker.jobs.values()), default=clock() + self._seconds)
            try:
                async with asyncio.timeout_at(due):  # wait_for swallows a cancellation that comes with the answer
                    ended: list[Ended] = unpack(await call)
                    return ended
            except TimeoutError:
                if any(job.sending.due <= clock() for job in worker.jobs.values()):
                    raise WorkerLost(f"no response ended in {self._seconds:g} s") from None

    def _came(self, worker: Worker, ended: Ended) -> None:
        job: Writing | None = worker.jobs.get(ended.sample_id)
        if job is None:
            return  # it failed with the call that it was sent by
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
