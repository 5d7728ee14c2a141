"""The pool of one teacher: scores responses in batches, and writes texts where it is asked to."""

from __future__ import annotations

import itertools
import time
from bisect import insort
from collections.abc import AsyncIterator, Sequence
from typing import Any

from actors.packed_messages import PackedList
from actors.pools.base import Pool
from actors.pools.continuing import Continuing, Text, seconds_for, texts_at_a_time
from actors.pools.jobs import Quarantined, Service, take_for
from actors.pools.result_queue import ResultQueue
from actors.pools.scoring import Batch, Scoring, check_in_vocabulary
from actors.pools.waiting import answer
from actors.pools.worker import Kind, Worker
from renio_pipeline.config.teacher_writing import check_teachers_write
from renio_pipeline.stages.continuations import by_request, single_requests
from renio_pipeline.stages.engine_limits import batch_tokens
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.types import Continuation, ContinuationRequest, Rollout, ScoredRollout, ScoreRequest, TeacherScores


class TeacherPool(Pool):
    """Scores rollouts as they arrive, in batches bounded by tokens and by the remaining ``payload.max_bytes``.

    A batch is what is queued when a replica becomes free: a short queue gives a small batch at once, a long one a full batch.
    Texts are written concurrently with that, at most as many on a replica as its engine runs at a time, and a replica gets the
    next one as soon as one ends. A torch teacher, and any in a deterministic run, does one thing at a time. There it gets its
    share of a call's texts together and in order, so that batches repeat exactly.
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
        self._text_ids = itertools.count(-1, -1)
        self._calls_to_write = 0  # that have not returned: without any, the queue has no texts

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

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        """See ``renio_pipeline.stages.protocols.Teachers.write``."""
        check_teachers_write(self.config, f"a text of pool {self.name}")
        results = ResultQueue(self.workers.failing)
        jobs = [
            Continuing(sample_id=next(self._text_ids), place=place, request=one, results=results)
            for place, one in enumerate(single_requests(requests))
        ]
        self._calls_to_write += 1
        try:
            for job in jobs:
                insort(self.queue, job, key=lambda j: j.step)
            self.dispatch()
            found: list[Text] = []
            while len(found) < len(jobs):
                found += await results.take()
        finally:
            results.close()
            self.withdraw(jobs)
            self._calls_to_write -= 1
        return by_request(requests, [text.continuation for text in sorted(found, key=lambda text: text.place)])

    async def cancel_all(self) -> None:
        """Forget all jobs. Whoever waits for a text gets RuntimeError: unlike a step's, such waits may outlive a rollback."""
        for job in [*self.queue, *(job for worker in self.workers.all for job in worker.jobs.values())]:
            if isinstance(job, Continuing) and job.wanted:
                job.results.put(RuntimeError("the text was cancelled"))
        await super().cancel_all()

    def _submit(self, rollout: Rollout, step: int, results: ResultQueue) -> Scoring:
        check_in_vocabulary(rollout, self._vocab_size)
        size = len(rollout.token_ids) * self._token_bytes
        job = Scoring(prompt=rollout.prompt, results=results, rollout=rollout, step=step, payload_bytes=size)
        insort(self.queue, job, key=lambda j: j.step)  # an older step must never wait for a newer one
        return job

    def share(self, worker: Worker, fair: int) -> list[Any]:
        one_call = self._one_call(worker)
        if worker.alone or (one_call and worker.jobs):
            return []
        texts = self._texts(worker, fair)
        if worker.alone or (one_call and texts):
            return texts
        return [*texts, *self._batch(worker, idle=not (worker.jobs or texts))]

    def _one_call(self, worker: Worker) -> bool:
        """Whether a worker does one thing at a time: to repeat a run exactly, or because it has no engine."""
        return self.config.deterministic or worker.ready.limits is None

    def _texts(self, worker: Worker, fair: int) -> list[Continuing]:
        """The texts that a worker is to write next."""
        if not self._calls_to_write:
            return []
        queue = [job for job in self.queue if isinstance(job, Continuing)]
        if self.config.deterministic:
            queue = [job for job in queue if job.place % self.workers.target == worker.slot]
            room = len(queue)
        else:
            room = min(texts_at_a_time(worker), fair) - sum(isinstance(job, Continuing) for job in worker.jobs.values())
        run_alone, idle = self.poison_samples.must_run_alone, not worker.jobs
        texts, worker.alone = take_for(queue, lambda job: True, room, run_alone=run_alone, idle=idle)
        self._remove(texts)
        return texts

    def _batch(self, worker: Worker, *, idle: bool) -> list[Scoring]:
        """The responses that a worker is to score next. ``idle``: it has nothing else to do."""
        if any(isinstance(job, Scoring) for job in worker.jobs.values()):
            return []
        queue = self.queue
        if self._calls_to_write:
            queue = [job for job in queue if isinstance(job, Scoring)]
        if self.config.deterministic:
            queue = [job for job in queue if job.sample_id % self.workers.target == worker.slot]
        batch = Batch(self._budget, batch_tokens(self._section, worker.ready.limits))
        return self._take(worker, queue, batch, len(queue), idle=idle)

    def _take(self, worker: Worker, queue: list[Scoring], batch: Batch, room: int, *, idle: bool) -> list[Scoring]:
        """Up to ``room`` jobs from ``queue``, the pool's own or a part of it, as far as the batch holds them."""
        jobs, worker.alone = take_for(queue, batch.fits, room, run_alone=self.poison_samples.must_run_alone, idle=idle)
        if worker.alone and not batch.fits(jobs[0]):
            worker.alone = False
            queue.insert(0, jobs.pop())
        if queue is not self.queue:
            self._remove(jobs)
        return jobs

    def _remove(self, jobs: Sequence[Any]) -> None:
        taken = {job.sample_id for job in jobs}
        self.queue = [job for job in self.queue if job.sample_id not in taken]

    def begin(self, worker: Worker, jobs: Sequence[Any]) -> None:
        """Begin a call for each text, which ends when the text does, and one for all responses to score."""
        texts = [job for job in jobs if isinstance(job, Continuing)]
        scoring = [job for job in jobs if isinstance(job, Scoring)]
        for call in [texts] if self._one_call(worker) else [[text] for text in texts]:
            if call:
                super().begin(worker, call)
        if scoring:
            super().begin(worker, scoring)

    async def work(self, worker: Worker, jobs: Sequence[Any]) -> None:
        await (self._write if isinstance(jobs[0], Continuing) else self._score)(worker, jobs)

    async def _write(self, worker: Worker, jobs: Sequence[Continuing]) -> None:
        seconds = seconds_for(jobs, worker, self.config.faults)
        asked = worker.actor.write.remote(PackedList(job.request for job in jobs))
        found = await self.answered(worker, asked, seconds, f"{len(jobs)} texts to write")
        if worker.state == "gone":
            return  # it was given up, and its texts were sent to other workers
        for job, continuation in zip(jobs, found, strict=True):
            self.finish(worker, job, Text(job.place, continuation))

    async def _score(self, worker: Worker, jobs: Sequence[Scoring]) -> None:
        requests = PackedList(
            ScoreRequest(sample_id=j.sample_id, prompt_ids=j.prompt.teacher_ids, response_ids=j.rollout.token_ids) for j in jobs
        )
        faults = self.config.faults
        seconds = faults.deadline_seconds + faults.teacher_seconds_per_token * sum(j.tokens for j in jobs)
        what = f"{len(jobs)} responses to score"
        if self._token_bytes:
            logprobs_ref, payload = worker.actor.score.options(num_returns=2).remote(requests)
            logprobs = await self.answered(worker, logprobs_ref, seconds, what)
        else:  # no payload for the object store: one result is cheaper than two
            logprobs, payload = (await self.answered(worker, worker.actor.score.remote(requests), seconds, what))[0], None
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

    async def answered(self, worker: Worker, ref: Any, seconds: float, what: str) -> Any:
        """A call's result. Raises WorkerLost if it does not come in time."""
        return await answer(ref, seconds, what)

    def dropped(self, jobs: Sequence[Any]) -> None:
        for job in jobs:
            if isinstance(job, Scoring):
                self._budget.give_back(job.step, 1, job.payload_bytes)

    def _quarantine(self, job: Any, reason: str) -> None:
        if isinstance(job, Scoring):
            super()._quarantine(job, reason)
        elif job.wanted:
            asked = f"a text of up to {job.request.max_tokens} tokens after a prompt of {len(job.request.prompt_ids)}"
            job.results.put(KillsWorkers(f"pool {self.name}: {asked}: {reason}"))
