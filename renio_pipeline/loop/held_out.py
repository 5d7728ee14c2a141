"""Held-out accuracy of the student, sampled through the generators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renio_pipeline.grading.grader import Judge, Judged, judge_all
from renio_pipeline.intervals import wilson
from renio_pipeline.stages.protocols import Generators
from renio_pipeline.types import Evaluation, Prompt


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
