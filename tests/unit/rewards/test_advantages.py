"""Advantages against plain Python, TRL's own numbers, and their properties; and a step's rewards by its configuration."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config.schema.rewards import Baseline, Scale
from renio_pipeline.rewards import reward_step
from renio_pipeline.rewards.advantages import advantages, silent
from tests.unit.conftest import make_config

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "grpo.json").read_text())["cases"]
for_all = settings(deadline=None, derandomize=True)
BATCHES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=12)
GRPO = {"method": {"type": "grpo"}, "batch_size": 8, "samples_per_prompt": 4, "teacher": {}}


def plain(batch: list[tuple[int, float]], baseline: Baseline, scale: Scale) -> list[float]:
    found = []
    for group, reward in batch:
        own, everyone = [r for g, r in batch if g == group], [r for _, r in batch]
        expected = {"group": statistics.fmean(own), "batch": statistics.fmean(everyone), "none": 0.0}[baseline]
        spread = {"group": own, "batch": everyone, "none": []}[scale]
        deviation = statistics.stdev(spread) if len(spread) > 1 else 0.0
        found.append((reward - expected) / (1.0 if scale == "none" else deviation + 1e-4))
    return found


@for_all
@given(BATCHES, st.sampled_from(["group", "batch", "none"]), st.sampled_from(["group", "batch", "none"]))
def test_advantages_agree_with_plain_python(batch: list[tuple[int, float]], baseline: Baseline, scale: Scale) -> None:
    groups, rewards = (np.array(column) for column in zip(*batch, strict=True))
    found = advantages(rewards, groups, baseline=baseline, scale=scale)
    assert found.tolist() == pytest.approx(plain(batch, baseline, scale), abs=1e-7, rel=1e-7)
    assert silent(rewards, groups).tolist() == [len({r for g, r in batch if g == group}) == 1 for group, _ in batch]


@for_all
@given(BATCHES, st.sampled_from(["group", "batch", "none"]))
def test_within_a_group_advantages_sum_to_nothing_and_a_silent_group_has_none(
    batch: list[tuple[int, float]], scale: Scale
) -> None:
    groups, rewards = (np.array(column) for column in zip(*batch, strict=True))
    found = advantages(rewards, groups, baseline="group", scale=scale)
    for group in set(groups.tolist()):
        assert found[groups == group].sum() == pytest.approx(0, abs=1e-8)
    assert not np.abs(found[silent(rewards, groups)]).max(initial=0.0) > 1e-11
    more = advantages(rewards + 0.5, groups, baseline="group", scale=scale)
    assert more.tolist() == pytest.approx(found.tolist(), abs=1e-7)


@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
def test_advantages_are_those_of_trl(case: dict[str, Any]) -> None:
    rewards = np.array(case["rewards"])
    found = advantages(rewards, np.arange(len(rewards)) // case["group"], baseline="group", scale=case["scale"])
    assert found.tolist() == pytest.approx(case["advantages"], rel=1e-7, abs=1e-12)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must both be \[B\], got \(2,\), \(3,\)"):
        advantages(np.zeros(2), np.zeros(3), baseline="group", scale="none")


def step(verdicts: list[Any], scores: list[float | None] | None = None, first: int = 8, **changes: Any) -> Any:
    config = make_config(**{"samples_per_prompt": 2, "batch_size": len(verdicts), **changes})
    ids = list(range(first, first + len(verdicts)))
    return reward_step(config, ids, verdicts, scores or [None] * len(verdicts))


def test_a_run_without_rewards_has_none() -> None:
    assert step(["correct", "incorrect"]) is None


def test_grpo_scales_by_the_group_and_teaches_with_rewards_alone() -> None:
    found = step(["correct", "incorrect", "unfinished", "incorrect"], **GRPO | {"samples_per_prompt": 2, "batch_size": 4})
    assert found.rewards.tolist() == [1, 0, 0, 0]
    assert found.advantages.tolist() == pytest.approx([0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4), 0, 0])
    assert found.metrics == pytest.approx(
        {"reward/mean": 0.25, "reward/advantage_abs": 0.353503, "reward/silent": 0.5}, abs=1e-6
    )


@pytest.mark.parametrize(
    ("when", "taught"),
    [
        ("always", [True] * 6),
        ("incorrect", [False, True, True, True, False, False]),
        ("unsolved_group", [False, False, True, True, False, False]),
    ],
)
def test_who_learns_from_the_teacher(when: str, taught: list[bool]) -> None:
    verdicts = ["correct", "incorrect", "unfinished", "incorrect", "correct", "correct"]
    found = step(verdicts, reward={"coefficient": 0.5, "teacher_when": when})
    assert found.taught.tolist() == taught
    assert found.metrics["reward/taught"] == pytest.approx(sum(taught) / 6)
    assert found.advantages.tolist() == [0.5, -0.5, 0, 0, 0, 0]


@pytest.mark.parametrize(("baseline", "expected"), [("batch", [0.5, -0.5, 0.25, -0.25]), ("none", [1.0, 0.0, 0.75, 0.25])])
def test_scores_are_rewards_and_the_baseline_is_the_configured_one(baseline: str, expected: list[float]) -> None:
    verdicts: list[Any] = ["correct", "incorrect", "incorrect", "incorrect"]
    found = step(verdicts, [1.0, 0.0, 0.75, 0.25], reward={"coefficient": 1, "baseline": baseline})
    assert found.advantages.tolist() == pytest.approx(expected)


def test_the_others_of_a_quarantined_samples_group_are_compared_with_each_other() -> None:
    config = make_config(samples_per_prompt=4, batch_size=8, reward={"coefficient": 1})
    found = reward_step(config, [0, 2, 3, 4, 5, 6, 7], ["correct", *["incorrect"] * 6], [None] * 7)
    assert found is not None
    assert found.advantages.tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0])


def test_a_response_without_a_verdict_is_named() -> None:
    with pytest.raises(ValueError, match=r"samples \[9\] have no verdict"):
        step(["correct", None], reward={"coefficient": 1})
