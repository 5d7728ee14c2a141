"""The pool of one teacher: scores responses in batches."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from actors.packed_messages import PackedList
from actors.pools.base import Pool
from actors.pools.jobs import Job, Quarantined, Service, take_for
from actors.pools.result_queue import ResultQueue
from actors.pools.waiting import answer
from actors.pools.worker import Kind, Worker
from renio_pipeline.stages.engine_limits import batch_tokens
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.types import Rollout, ScoredRollout, ScoreRequest, TeacherScores


@dataclass(eq=False, kw_only=True)
class Scoring(Job):
    rollout: Rollout
    step: int
    payload_bytes: int

    @property
    def tokens(self) -> int:
        return len(self.prompt.teacher_ids) + len(self.rollout.token_ids)


class TeacherPool(Pool):
    """Scores rollouts as they arrive, in batches bounded by tokens and by the remaining ``payload.max_bytes``.

    A batch is what is queued when a replica becomes free: a short queue gives a small batch at once, a long one a full batch.
    """

    def __init__(
        self,
        kind: Kind,
        size: int,
        service: Service,
        budget: PayloadBudget,
        token_bytes: int = 0,
        *,
        vocab_size: int = 2**31,
        teacher: str = "",
    ) -> None:
        super().__init__(kind, size, service)
        self._section = self.config.all_teachers[teacher]
        self._budget, self._token_bytes, self._vocab_size, self._teacher = budget, token_bytes, vocab_size, teacher

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Score rollouts as they arrive. Returns them in the order of sample ids, without quarantined samples."""
        results = ResultQueue(self.workers.failing)
        jobs: list[Scoring] = []
        arrived: list[Rollout] = []
        try:
            async for rollout in rollouts:
                if self.config.deterministic:
                    arrived.append(rollout)  # scored in order, in batches that repeat exactly
                else:
                    jobs.append(self._submit(rollout, step, results))
                    self.schedule_dispatch()
            arrived.sort(key=lambda r: r.sample_id)
            jobs += [self._submit(rollout, step, results) for rollout in arrived]
            self.dispatch()
            found: list[Any] = []
            while len(found) < len(jobs):
                found += await results.take()
        finally:
            results.close()
            self.withdraw(jobs)
        return sorted((f for f in found if not isinstance(f, Quarantined)), key=lambda s: s.rollout.sample_id)

    def _submit(self, rollout: Rollout, step: int, results: ResultQueue) -> Scoring:
        _in_vocabulary(rollout, self._vocab_size)
        size = len(rollout.token_ids) * self._token_bytes
        job = Scoring(prompt=rollout.prompt, results=results, rollout=rollout, step=step, payload_bytes=size)
        insort(self.queue, job, key=lambda j: j.step)  # an older step must never wait for a newer one
        return job

    def share(self, worker: Worker, fair: int) -> list[Scoring]:
        if worker.jobs:
            return []
        queue = self.queue
        if self.config.deterministic:
            queue = [job for job in self.queue if job.sample_id % self.workers.target == worker.slot]
        batch = _Batch(self._budget, batch_tokens(self._section, worker.ready.limits))
        jobs, worker.alone = take_for(queue, batch.fits, len(queue), run_alone=self.poison_samples.must_run_alone, idle=True)
        if worker.alone and not batch.fits(jobs[0]):
            worker.alone = False
            queue.insert(0, jobs.pop())
        if queue is not self.queue:
            self.queue = [job for job in self.queue if job not in jobs]
        return jobs

    async def work(self, worker: Worker, jobs: Sequence[Scoring]) -> None:
        requests = PackedList(
            ScoreRequest(sample_id=j.sample_id, prompt_ids=j.prompt.teacher_ids, response_ids=j.rollout.token_ids) for j in jobs
        )
        faults = self.config.faults
        seconds = faults.deadline_seconds + faults.teacher_seconds_per_token * sum(j.tokens for j in jobs)
        what = f"{len(jobs)} responses to score"
        if self._token_bytes:
            logprobs_ref, payload = worker.actor.score.options(num_returns=2).remote(requests)
            logprobs = await answer(logprobs_ref, seconds, what)
        else:  # no payload for the object store: one result is cheaper than two
            logprobs, payload = (await answer(worker.actor.score.remote(requests), seconds, what))[0], None
        if worker.state == "gone":
            return  # it was given up, and its samples were sent to other workers
        came = time.perf_counter()
        for job, scores in zip(jobs, logprobs, strict=True):
            found = TeacherScores(
                sample_id=job.sample_id,
                logprobs=scores,
                payload=payload,
                payload_bytes=job.payload_bytes,
                replica=f"{self._teacher}/{worker.name}" if self._teacher else worker.name,
                times=(job.sent, came),
            )
            self.finish(worker, job, ScoredRollout(rollout=job.rollout, scores=found))

    def dropped(self, jobs: Sequence[Scoring]) -> None:
        for job in jobs:
            self._budget.give_back(job.step, 1, job.payload_bytes)


@dataclass
class _Batch:
    """Collects a batch: its tokens so far, and its share of the payload budget."""

    budget: PayloadBudget
    max_tokens: int
    tokens: int = 0

    def fits(self, job: Scoring) -> bool:
        """Add a job if it fits into the batch, which takes at least one, and into the budget. Returns whether it did."""
        if self.tokens and self.tokens + job.tokens > self.max_tokens:
            return False
        if not self.budget.fits(job.step, job.payload_bytes):
            return False
        self.budget.take(job.step, 1, job.payload_bytes)
        self.tokens += job.tokens
        return True


def _in_vocabulary(rollout: Rollout, vocab_size: int) -> None:
    """Raises ValueError for a token id outside the shared vocabulary, whose probability would be another token's."""
    ids = rollout.token_ids
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
        outside = ids[(ids < 0) | (ids >= vocab_size)]
        raise ValueError(
            f"sample {rollout.sample_id}: the response has token id {outside[0]}, outside the {vocab_size} entries that the "
            "output heads of student and teacher share"
        )
