"""Check that a teacher's replicas agree: each scores the same few texts before it serves."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from actors.pools.waiting import WorkerLost, answer
from actors.pools.worker import Worker
from renio_pipeline.config import RunConfig
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import ScoreRequest

TEXTS, TOKENS = 4, 32
# Accepted difference in nats, averaged over tokens. In bfloat16, different kernels (another GPU, another batch shape) shift
# log-probabilities by about 0.04; different weights shift them by several nats.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15}
FACTOR = 4  # accepted multiple of the first replica's own noise, if that is larger


class Probe:
    """Compares every later replica's log p_T of fixed tokens with the first replica's, under the teacher's initial weights.

    A replica that differs would give its samples another training signal, and nothing else would show it. How large a
    difference rounding explains depends on the model. The first replica scores the texts together and one by one: batches of
    different shapes, and so different kernels. The gap between the two is the noise.
    """

    def __init__(self, prepared: Prepared, config: RunConfig, teacher: str) -> None:
        rng = np.random.default_rng(0)
        tokens, vocab_size = min(TOKENS, config.max_response_tokens), prepared.sizes_of(teacher).vocab_size
        self._requests = [  # with prompts that may be another teacher's, in tokens of its own
            ScoreRequest(
                sample_id=i, prompt_ids=ids % vocab_size, response_ids=rng.integers(0, vocab_size, tokens).astype(np.int32)
            )
            for i, ids in enumerate(prepared.teacher_ids[:TEXTS])
        ]
        self.tolerance = TOLERANCE[config.all_teachers[teacher].dtype]
        self._seconds = config.faults.deadline_seconds
        self._expected: np.ndarray | None = None  # [tokens of all texts] float32
        self._first = asyncio.Lock()  # of replicas that start concurrently, one is the first

    async def check(self, worker: Worker) -> None:
        """Raises WorkerLost if a replica differs from the first by more than rounding explains."""
        found = await self._score(worker, self._requests)
        async with self._first:
            if self._expected is None:
                apart = np.concatenate([await self._score(worker, [request]) for request in self._requests])
                self.tolerance = max(self.tolerance, FACTOR * float(np.abs(found - apart).mean()))
                self._expected = found
                return
        gap = float(np.abs(found - self._expected).mean())
        if not gap <= self.tolerance:  # NaN too
            raise WorkerLost(
                f"its log-probabilities of fixed texts differ by {gap:.3g} on average from the first replica's, more than the "
                f"{self.tolerance:.3g} that rounding explains: do all nodes have the same model files and versions?"
            )

    async def _score(self, worker: Worker, requests: list[ScoreRequest]) -> np.ndarray:
        refs: Any = worker.actor.score.options(num_returns=2).remote(requests)
        return np.concatenate(await answer(refs[0], self._seconds, "a probe"))
