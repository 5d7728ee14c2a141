"""Rewards, relative to what was to be expected (GRPO, arXiv 2402.03300). B samples of a step's batch."""

from __future__ import annotations

import numpy as np

from renio_pipeline.config.schema.rewards import Baseline, Scale

LEAST_DEVIATION = 1e-4  # added to a standard deviation before the division, as TRL's GRPOTrainer does


def advantages(rewards: np.ndarray, groups: np.ndarray, *, baseline: Baseline, scale: Scale) -> np.ndarray:
    """(reward − baseline) / (standard deviation + 1e-4), [B] float64.

    rewards [B]: from 0 to 1. groups [B]: any number for each group of responses to one problem.
    baseline: the mean over the group, or over the batch; none: 0.
    scale: the standard deviation within the group, or over the batch; none: no division. Of a single reward it is 0, and
    otherwise that of a sample, with n − 1 in its denominator.

    Raises ValueError for shapes that differ.
    """
    if rewards.shape != groups.shape or rewards.ndim != 1:
        raise ValueError(f"rewards and groups must both be [B], got {rewards.shape}, {groups.shape}")
    values = rewards.astype(np.float64)
    _, group = np.unique(groups, return_inverse=True)
    expected = {"group": _means(values, group), "batch": _means(values, 0 * group), "none": np.zeros(len(values))}
    centred: np.ndarray = values - expected[baseline]
    if scale == "none":
        return centred
    deviations: np.ndarray = _deviations(values, group if scale == "group" else 0 * group)
    return centred / (deviations + LEAST_DEVIATION)


def silent(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Of each sample, whether all rewards of its group are equal: [B] bool. Relative to the group they say nothing."""
    _, group = np.unique(groups, return_inverse=True)
    most, least = np.full(len(rewards), -np.inf), np.full(len(rewards), np.inf)
    np.maximum.at(most, group, rewards)
    np.minimum.at(least, group, rewards)
    found: np.ndarray = (most == least)[group]
    return found


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    count = np.bincount(group, minlength=len(values))
    means: np.ndarray = (np.bincount(group, values, minlength=len(values)) / np.maximum(count, 1))[group]
    return means


def _deviations(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    squares = (values - _means(values, group)) ** 2
    count = np.bincount(group, minlength=len(values))
    variance = np.bincount(group, squares, minlength=len(values)) / np.maximum(count - 1, 1)
    deviations: np.ndarray = np.sqrt(variance)[group]
    return deviations
