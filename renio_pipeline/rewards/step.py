"""One step's rewards: its advantages, and which of its samples learn from the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import Grpo
from renio_pipeline.rewards.advantages import advantages, silent
from renio_pipeline.types import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """Of a step's B samples, in the order of their ids."""

    rewards: np.ndarray  # [B] float64, from 0 to 1
    advantages: np.ndarray  # [B] float64
    taught: np.ndarray  # [B] bool: which samples learn from the teacher
    metrics: dict[str, float]


def reward_step(
    config: RunConfig, sample_ids: Sequence[int], verdicts: Sequence[Verdict | None], scores: Sequence[float | None]
) -> Rewarded | None:
    """What the verifier's rewards make of a step's samples; None for a run that does not learn from them.

    The group of a sample is the ``samples_per_prompt`` consecutive sample ids of its draw. One that was quarantined is missing
    there, and the others are compared with each other.

    Args:
        scores: of a task that gives scores, from 0 to 1; None: a correct response is worth 1, and any other 0.

    Raises:
        ValueError: a response has no verdict.
    """
    if not config.rewarded:
        return None
    if None in verdicts:
        bad = [i for i, verdict in zip(sample_ids, verdicts, strict=True) if verdict is None]
        raise ValueError(f"samples {bad} have no verdict, and so no reward; give every row its answer")
    rewards = np.array([_reward(v, s) for v, s in zip(verdicts, scores, strict=True)], np.float64)
    groups = np.array(sample_ids, np.int64) // config.samples_per_prompt
    grouped = isinstance(config.method, Grpo) or config.reward.baseline == "group"
    if isinstance(config.method, Grpo):
        found = advantages(rewards, groups, baseline="group", scale=config.method.scale)
    else:
        found = advantages(rewards, groups, baseline=config.reward.baseline, scale="none")
    taught = _taught(config, [verdict == "correct" for verdict in verdicts], groups)
    metrics = {
        "reward/mean": float(rewards.mean()),
        "reward/advantage_abs": float(np.abs(found).mean()),
    }
    if grouped:
        metrics["reward/silent"] = float(silent(rewards, groups).mean())
    if config.distils:
        metrics["reward/taught"] = float(taught.mean())
    return Rewarded(rewards=rewards, advantages=found, taught=taught, metrics=metrics)


def _reward(verdict: Verdict | None, score: float | None) -> float:
    return float(verdict == "correct") if score is None else score


def _taught(config: RunConfig, correct: Sequence[bool], groups: np.ndarray) -> np.ndarray:
    solved = np.array(correct, bool)
    if config.reward.teacher_when == "incorrect":
        return ~solved
    if config.reward.teacher_when == "unsolved_group":
        taught: np.ndarray = ~np.isin(groups, groups[solved])
        return taught
    return np.ones(len(solved), bool)
