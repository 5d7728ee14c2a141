"""Held-out accuracy of the student, sampled through the generators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.pipeline import Generators
from renio_pipeline.selection import judge_of
from renio_pipeline.tasks import Task
from renio_pipeline.types import Prompt

Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    problems: int
    accuracy: float
    low: float  # of the 95 % interval
    high: float
    response_tokens: float  # mean

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.problems} held-out problems"


async def evaluate(
    generators: Generators, prompts: Sequence[Prompt], task: Task, tokenizer: Any, temperature: float
) -> Evaluation:
    """Write one response a problem and grade it; a response that is not finished counts as wrong."""
    rollouts = [r async for r in generators.generate(prompts, temperature)]
    judge = judge_of(task, tokenizer)
    verdicts = [judge(r).verdict for r in rollouts]
    graded = [v for v in verdicts if v is not None]
    if not graded:
        raise ValueError("evaluate.problems: no held-out row has an answer that the task can verify")
    low, high = wilson(sum(v == "correct" for v in graded), len(graded))
    return Evaluation(
        problems=len(graded), accuracy=sum(v == "correct" for v in graded) / len(graded), low=low, high=high,
        response_tokens=float(np.mean([len(r.token_ids) for r in rollouts])),
    )  # fmt: skip


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (E. B. Wilson, JASA 22, 1927)."""
    p, z2 = successes / trials, Z_95**2
    centre = p + z2 / (2 * trials)
    spread = Z_95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    low, high = (centre - spread) / (1 + z2 / trials), (centre + spread) / (1 + z2 / trials)
    return max(0.0, low), min(1.0, high)  # rounding leaves -4e-18 where nothing succeeded
