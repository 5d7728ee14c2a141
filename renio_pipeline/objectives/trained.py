"""The loss that a run trains on: its objective, as its schedule and its rewards make it."""

from __future__ import annotations

from renio_pipeline.config import RunConfig
from renio_pipeline.objectives.base import Objective
from renio_pipeline.objectives.with_reward import WithReward
from renio_pipeline.objectives.without_teacher.clipped import Clipped


def trained_objective(config: RunConfig) -> Objective:
    """A run's objective as its trainer ranks compute it."""
    objective = config.objective
    assert isinstance(objective, Objective)
    if not config.max_staleness and not config.recorded_teachers:  # recorded responses are of an older policy
        with objective.guarded("on_policy"):
            objective = objective.on_policy()
    if not config.reward.coefficient:
        return objective
    policy = Clipped(normalization=objective.normalization)
    return WithReward(
        inner=objective, coefficient=config.reward.coefficient, policy=policy, normalization=objective.normalization
    )
