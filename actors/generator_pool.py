"""The generator pool, as the step loop sees it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from actors.generation import WriteRequest, Written
from actors.pool import Job, Pool, Rejected, Service, take_for
from actors.workers import Kind, Worker, WorkerLost
from renio_pipeline.types import Prompt, Rollout

MAX_RESENDS = 3


def sample_seed(run_seed: int, sample_id: int) -> int:
    """A seed of one's own for every sample of every run."""
    digest = hashlib.blake2b(f"{run_seed}/{sample_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


@dataclass(eq=False, kw_only=True)
class Writing(Job):
    temperature: float
    aborts: int = 0


class GeneratorPool(Pool):
    """Dispatches prompts to replicas and streams the responses back.

    A replica has at most its engine's ``max_num_seqs`` samples, and gets more as they end. In a deterministic run each
    replica gets the samples of its number, all at once and in order, so that batches repeat exactly.
    """

    def __init__(self, kind: Kind, size: int, service: Service) -> None:
        super().__init__(kind, size, service)
        self._slots = int(self.config.generator.engine.get("max_num_seqs", 256))

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        """Yield each response as it ends. A sample that is rejected has none."""
        results: asyncio.Queue[Any] = asyncio.Queue()
        jobs = {p.sample_id: Writing(prompt=p, results=results, temperature=temperature) for p in prompts}
        self.queue += sorted(jobs.values(), key=lambda j: j.sample_id) if self.config.deterministic else jobs.values()
        self.pump()
        left = len(jobs)
        try:
            while left:
                found = await self.workers.or_failure(results.get())
                if isinstance(found, Exception):
                    raise found
                left -= 1
                if not isinstance(found, Rejected):
                    yield found
        finally:
            self.withdraw(list(jobs.values()))

    def share(self, worker: Worker) -> list[Writing]:
        if worker.alone:
            return []
        if self.config.deterministic:
            return self._own(worker)
        if len(worker.jobs) >= self._slots:
            return []
        serving = self.workers.serving
        fair = -(-(len(self.queue) + sum(len(w.jobs) for w in serving)) // len(serving))
        most = min(self._slots, fair) - len(worker.jobs)
        jobs, worker.alone = take_for(
            self.queue, lambda job: True, most, suspect=self.suspects.alone, idle=not worker.jobs
        )  # fmt: skip
        return jobs

    def _own(self, worker: Worker) -> list[Writing]:
        own = [job for job in self.queue if job.sample_id % self.workers.target == worker.slot]
        jobs, worker.alone = take_for(own, lambda job: True, len(own), suspect=self.suspects.alone, idle=not worker.jobs)
        self.queue = [job for job in self.queue if job not in jobs]
        return jobs

    async def work(self, worker: Worker, jobs: Sequence[Writing]) -> None:
        owed = {job.sample_id: job for job in jobs}
        faults = self.config.faults
        seconds = faults.deadline_seconds + faults.generator_seconds_per_token * self.config.max_response_tokens
        stream = worker.actor.generate.options(num_returns="streaming").remote([self._request(job) for job in jobs])
        while True:
            try:
                async with asyncio.timeout(seconds):  # wait_for swallows a cancellation that comes with the response
                    written = await _next(stream)
            except StopAsyncIteration:
                assert not owed, f"generator {worker.name} said nothing of samples {list(owed)}"
                return
            except TimeoutError:
                raise WorkerLost(f"no response ended in {seconds:g} s") from None
            if worker.state == "gone":
                return  # it was given up, and what it had is somebody else's
            self._came(worker, owed.pop(written.sample_id), written)
            self.workers.changed()

    def _came(self, worker: Worker, job: Writing, written: Written) -> None:
        if written.stop_reason is not None or not job.wanted:
            self.finish(worker, job, None if written.stop_reason is None else _rollout(job, written, worker.name))
            return
        worker.jobs.pop(job.sample_id, None)
        worker.alone = False
        job.aborts += 1
        if job.aborts > MAX_RESENDS:
            job.results.put_nowait(RuntimeError(f"sample {job.sample_id} was aborted {job.aborts} times by its generator"))
        else:
            self.queue.append(job)

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
        )


async def _next(stream: Any) -> Written:
    written: Written = await (await anext(stream))
    return written


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
