"""Do the replicas of a teacher agree? Each scores the same few texts before it serves."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.worker import Worker, WorkerLost, answer
from renio_pipeline.config import RunConfig
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import ScoreRequest

TEXTS, TOKENS = 4, 32
# Nats, on average over the tokens: of the same weights, kernels and batch shapes make far less.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}


class Probe:
    """The first replica's answers are what every later one is held to: log p_T of fixed tokens, by the teacher's own weights.

    A replica that differs would give another signal than the rest, sample by sample, and nothing else would show it.
    """

    def __init__(self, prepared: Prepared, config: RunConfig, teacher: str) -> None:
        rng = np.random.default_rng(0)
        tokens = min(TOKENS, config.max_response_tokens)
        self._requests = [
            ScoreRequest(
                sample_id=i, prompt_ids=ids, response_ids=rng.integers(0, prepared.vocab_size, tokens).astype(np.int32)
            )
            for i, ids in enumerate(prepared.teacher_ids[:TEXTS])
        ]
        self._tolerance = TOLERANCE[config.all_teachers[teacher].dtype]
        self._seconds = config.faults.deadline_seconds
        self._expected: list[np.ndarray] | None = None

    async def check(self, worker: Worker) -> None:
        """Raises WorkerLost if a replica differs from the first by more than its dtype explains."""
        refs: Any = worker.actor.score.options(num_returns=2).remote(self._requests)
        found: list[np.ndarray] = await answer(refs[0], self._seconds, "a probe")
        if self._expected is None:
            self._expected = found
            return
        gap = float(np.abs(np.concatenate(found) - np.concatenate(self._expected)).mean())
        if not gap <= self._tolerance:  # NaN too
            raise WorkerLost(
                f"its log-probabilities of fixed texts differ by {gap:.3g} on average from the first replica's, more than the "
                f"{self._tolerance:g} that its dtype explains: do all nodes have the same model files and versions?"
            )
