"""Several teachers as one stage: all of them score each response, and their probabilities are mixed (``combine``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np

from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.stages.teacher_routing import RoutedTeachers, drain
from renio_pipeline.types import Mixture, Rollout, ScoredRollout, TeacherScores


class CombinedTeachers(RoutedTeachers):
    """Independent pools, of which each scores everything. A sample that one of them quarantines is dropped from all."""

    def __init__(self, pools: Mapping[str, Teachers], weights: Mapping[str, float]) -> None:
        """``weights``: of each pool's teacher; they sum to 1."""
        super().__init__(pools)
        self._weights = dict(weights)

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Hand each rollout to every pool as it arrives. Returns the mixtures in the order of sample ids."""
        queues: dict[str, asyncio.Queue[Rollout | None]] = {name: asyncio.Queue() for name in self.pools}
        async with asyncio.TaskGroup() as scoring:
            tasks = {name: scoring.create_task(pool.score(drain(queues[name]), step)) for name, pool in self.pools.items()}
            async for rollout in rollouts:
                for queue in queues.values():
                    queue.put_nowait(rollout)
            for queue in queues.values():
                queue.put_nowait(None)
        return mixed({name: task.result() for name, task in tasks.items()}, self._weights)


def mixed(scored: Mapping[str, Sequence[ScoredRollout]], weights: Mapping[str, float]) -> list[ScoredRollout]:
    """The samples that every teacher has scored, by the mixture of the teachers, in the order of sample ids.

    Args:
        scored: what each teacher scored.
        weights: of each teacher; they sum to 1.
    """
    by_id = {name: {s.rollout.sample_id: s for s in own} for name, own in scored.items()}
    common = set.intersection(*(set(own) for own in by_id.values()))
    names = list(by_id)
    shares = [weights[name] for name in names]
    return [_mixture([by_id[name][i] for name in names], shares) for i in sorted(common)]


def _mixture(scored: Sequence[ScoredRollout], weights: Sequence[float]) -> ScoredRollout:
    scores = [s.scores for s in scored if s.scores is not None]
    payload = None
    if scores[0].payload is not None:
        payload = Mixture(parts=tuple(s.payload for s in scores), weights=tuple(weights))
    found = TeacherScores(
        sample_id=scores[0].sample_id,
        logprobs=mixture_logprobs([s.logprobs for s in scores], weights),
        payload=payload,
        payload_bytes=sum(s.payload_bytes for s in scores),
        replica="+".join(s.replica for s in scores),
        times=(min(s.times[0] for s in scores), max(s.times[1] for s in scores)),
    )
    return ScoredRollout(rollout=scored[0].rollout, scores=found)


def mixture_logprobs(logprobs: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """log Σ_i w_i p_i, [T] float32 in nats, of the teachers' log p_i, [T] each. −inf where no teacher gives a probability."""
    weighed = np.stack(logprobs).astype(np.float64) + np.log(weights)[:, None]
    return np.logaddexp.reduce(weighed, axis=0).astype(np.float32)
