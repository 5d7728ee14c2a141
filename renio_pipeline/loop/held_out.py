"""Held-out accuracy of the student, sampled through the generators."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import numpy as np

from renio_pipeline.grading.grader import Judge, Judged
from renio_pipeline.stages.protocols import Generators
from renio_pipeline.types import Evaluation, Prompt, Rollout

Z_95 = 1.959964


async def evaluate(generators: Generators, prompts: Sequence[Prompt], judge: Judge, temperature: float) -> Evaluation:
    """Sample one response per problem, and grade each while others are sampled. An unfinished response counts as wrong.

    Raises:
        ValueError: the task has a verdict on no row.
    """
    judged = await judge_all(generators.generate(prompts, temperature), judge)
    verdicts = [found.verdict for found in judged]
    graded = [v for v in verdicts if v is not None]
    if not graded:
        raise ValueError("evaluate.problems: no held-out row has an answer that the task can verify")
    low, high = wilson(sum(v == "correct" for v in graded), len(graded))
    return Evaluation(
        problems=len(graded),
        accuracy=sum(v == "correct" for v in graded) / len(graded),
        low=low,
        high=high,
        response_tokens=float(np.mean([len(found.rollout.token_ids) for found in judged])),
        sources=_by_source(judged),
    )


def _by_source(judged: Sequence[Judged]) -> dict[str, float]:
    """The accuracy on each source's problems; nothing if there is a single source."""
    verdicts: dict[str, list[bool]] = {}
    for found in judged:
        if (source := found.rollout.prompt.row.source) is not None and found.verdict is not None:
            verdicts.setdefault(source, []).append(found.verdict == "correct")
    return {source: float(np.mean(own)) for source, own in sorted(verdicts.items())}


async def judge_all(rollouts: AsyncIterator[Rollout], judge: Judge) -> list[Judged]:
    """Judge each response while the next ones are written."""
    under_way: list[asyncio.Future[Judged]] = []
    try:
        async for rollout in rollouts:
            under_way.append(asyncio.ensure_future(judge(rollout)))
        return await asyncio.gather(*under_way)
    finally:
        for task in under_way:
            task.cancel()


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (E. B. Wilson, JASA 22, 1927)."""
    p, z2 = successes / trials, Z_95**2
    centre = p + z2 / (2 * trials)
    spread = Z_95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    low, high = (centre - spread) / (1 + z2 / trials), (centre + spread) / (1 + z2 / trials)
    return max(0.0, low), min(1.0, high)  # rounding can leave -4e-18 where nothing succeeded
