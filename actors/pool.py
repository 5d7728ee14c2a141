"""Generator and teacher pools, as the step loop sees them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from actors.generation import WriteRequest, Written
from renio_pipeline.config import RunConfig
from renio_pipeline.types import Prompt, Rollout, ScoredRollout, ScoreRequest, TeacherScores

MAX_RESENDS = 3


def sample_seed(run_seed: int, sample_id: int) -> int:
    """A seed of one's own for every sample of every run."""
    digest = hashlib.blake2b(f"{run_seed}/{sample_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF


class GeneratorPool:
    """Dispatches prompts to replicas and streams the responses back.

    A replica has at most its engine's ``max_num_seqs`` samples, and gets more as they end. In a deterministic run each
    replica gets the samples of its number, all at once and in order, so that batches repeat exactly.
    """

    def __init__(self, replicas: Sequence[Any], config: RunConfig) -> None:
        self.replicas = list(replicas)
        self.size = len(self.replicas)
        self._config = config
        self._slots = int(config.generator.engine.get("max_num_seqs", 256))

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        by_id = {p.sample_id: p for p in prompts}
        resends: dict[int, int] = {}
        done: asyncio.Queue[tuple[int, Written | BaseException]] = asyncio.Queue()
        pending, load = self._queues(prompts), [0] * self.size
        streams: set[asyncio.Task[None]] = set()
        left = len(by_id)
        try:
            while left:
                for i in range(self.size):
                    share = self._next_share(pending[i], load, i)
                    if share:
                        load[i] += len(share)
                        streams.add(asyncio.create_task(self._stream(i, share, temperature, done)))
                replica, written = await done.get()
                if isinstance(written, BaseException):
                    raise written
                load[replica] -= 1
                prompt = by_id[written.sample_id]
                if written.stop_reason is None:
                    resends[prompt.sample_id] = resends.get(prompt.sample_id, 0) + 1
                    if resends[prompt.sample_id] > MAX_RESENDS:
                        raise RuntimeError(f"sample {prompt.sample_id} was aborted {MAX_RESENDS + 1} times by its generator")
                    pending[replica].append(prompt)
                    continue
                left -= 1
                yield _rollout(prompt, written, replica)
        finally:
            for stream in streams:
                stream.cancel()

    async def busy_seconds(self) -> list[float]:
        return list(await asyncio.gather(*(r.busy_seconds.remote() for r in self.replicas)))

    def _queues(self, prompts: Sequence[Prompt]) -> list[deque[Prompt]]:
        """One queue a replica when deterministic, or one that all share."""
        if not self._config.deterministic:
            return [deque(prompts)] * self.size
        ordered = sorted(prompts, key=lambda p: p.sample_id)
        return [deque(p for p in ordered if p.sample_id % self.size == i) for i in range(self.size)]

    def _next_share(self, queue: deque[Prompt], load: list[int], replica: int) -> list[Prompt]:
        if self._config.deterministic:
            count = len(queue)
        else:
            fair = -(-(len(queue) + sum(load)) // self.size)
            count = min(self._slots, fair) - load[replica]
        return [queue.popleft() for _ in range(min(count, len(queue)))]

    async def _stream(self, replica: int, prompts: Sequence[Prompt], temperature: float, done: asyncio.Queue[Any]) -> None:
        try:
            requests = [self._request(p, temperature) for p in prompts]
            async for ref in self.replicas[replica].generate.options(num_returns="streaming").remote(requests):
                await done.put((replica, await ref))
        except Exception as error:
            await done.put((replica, error))

    def _request(self, prompt: Prompt, temperature: float) -> WriteRequest:
        sampling = self._config.sampling
        return WriteRequest(
            sample_id=prompt.sample_id,
            prompt_ids=prompt.student_ids,
            seed=sample_seed(self._config.seed, prompt.sample_id),
            max_tokens=self._config.max_response_tokens,
            temperature=temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )


def _rollout(prompt: Prompt, written: Written, replica: int) -> Rollout:
    assert written.stop_reason is not None
    return Rollout(
        prompt=prompt,
        token_ids=written.token_ids,
        logprobs=written.logprobs,
        stop_reason=written.stop_reason,
        version=written.version,
        replica=str(replica),
    )


class TeacherPool:
    """Scores rollouts as they come, in batches bounded by tokens.

    A batch is whatever waits when a replica falls free: short queues give small batches at once, long ones full batches.
    """

    def __init__(
        self, replicas: Sequence[Any], config: RunConfig, token_bytes: int = 0, *, vocab_size: int = 2**31, name: str = ""
    ) -> None:
        self.replicas = list(replicas)
        self.size = len(self.replicas)
        self._deterministic, self._max_tokens = config.deterministic, config.all_teachers[name].max_batch_tokens
        self._token_bytes, self._vocab_size, self._name = token_bytes, vocab_size, name

    async def score(self, rollouts: AsyncIterator[Rollout]) -> list[ScoredRollout]:
        scored = await (self._score_in_order(rollouts) if self._deterministic else self._score_as_they_come(rollouts))
        return sorted(scored, key=lambda s: s.rollout.sample_id)

    async def busy_seconds(self) -> list[float]:
        return list(await asyncio.gather(*(r.busy_seconds.remote() for r in self.replicas)))

    async def _score_as_they_come(self, rollouts: AsyncIterator[Rollout]) -> list[ScoredRollout]:
        waiting: deque[Rollout] = deque()
        news = asyncio.Condition()
        scored: list[ScoredRollout] = []
        ended = False

        async def serve(replica: int) -> None:
            while True:
                async with news:
                    await news.wait_for(lambda: waiting or ended)
                    batch = take_batch(waiting, self._max_tokens)
                if not batch:
                    return
                scored.extend(await self._score_batch(replica, batch))

        async with asyncio.TaskGroup() as servers:
            for replica in range(self.size):
                servers.create_task(serve(replica))
            async for rollout in rollouts:
                async with news:
                    waiting.append(rollout)
                    news.notify()
            async with news:
                ended = True
                news.notify_all()
        return scored

    async def _score_in_order(self, rollouts: AsyncIterator[Rollout]) -> list[ScoredRollout]:
        """Deterministic: each replica scores the samples of its number, in order, in batches that repeat exactly."""
        ordered = sorted([r async for r in rollouts], key=lambda r: r.sample_id)

        async def serve(replica: int) -> list[ScoredRollout]:
            waiting = deque(r for r in ordered if r.sample_id % self.size == replica)
            scored: list[ScoredRollout] = []
            while batch := take_batch(waiting, self._max_tokens):
                scored += await self._score_batch(replica, batch)
            return scored

        return list(itertools.chain.from_iterable(await asyncio.gather(*map(serve, range(self.size)))))

    async def _score_batch(self, replica: int, batch: Sequence[Rollout]) -> list[ScoredRollout]:
        for rollout in batch:
            _in_vocabulary(rollout, self._vocab_size)
        requests = [
            ScoreRequest(sample_id=r.sample_id, prompt_ids=r.prompt.teacher_ids, response_ids=r.token_ids) for r in batch
        ]
        refs: tuple[Awaitable[Any], Any] = self.replicas[replica].score.options(num_returns=2).remote(requests)
        logprobs_ref, payload = refs
        logprobs = await logprobs_ref
        return [
            ScoredRollout(
                rollout=rollout,
                scores=TeacherScores(
                    sample_id=rollout.sample_id,
                    logprobs=scores,
                    payload=payload if self._token_bytes else None,
                    payload_bytes=len(scores) * self._token_bytes,
                    replica=f"{self._name}/{replica}" if self._name else str(replica),
                ),
            )
            for rollout, scores in zip(batch, logprobs, strict=True)
        ]


def _in_vocabulary(rollout: Rollout, vocab_size: int) -> None:
    """Raises ValueError for a token that the teacher may not know: its probability would be another token's."""
    outside = rollout.token_ids[(rollout.token_ids < 0) | (rollout.token_ids >= vocab_size)]
    if len(outside):
        raise ValueError(
            f"sample {rollout.sample_id}: the response has token id {outside[0]}, outside of the {vocab_size} entries that the "
            "output heads of student and teacher share"
        )


def take_batch(waiting: deque[Rollout], max_tokens: int) -> list[Rollout]:
    """As many from the front as fit in ``max_tokens``, and at least one if there is one."""
    batch: list[Rollout] = []
    tokens = 0
    while waiting:
        tokens += len(waiting[0].prompt.teacher_ids) + len(waiting[0].token_ids)
        if batch and tokens > max_tokens:
            break
        batch.append(waiting.popleft())
    return batch
