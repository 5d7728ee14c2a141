"""A run's pools of teachers as the one stage that a step calls."""

from __future__ import annotations

from collections.abc import Mapping

from renio_pipeline.config import RunConfig
from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.stages.teacher_mixture import CombinedTeachers
from renio_pipeline.stages.teacher_routing import RoutedTeachers


def as_one_stage(config: RunConfig, pools: Mapping[str, Teachers]) -> Teachers:
    """``pools``: of each teacher, by its name; a single one's is empty."""
    if config.mixture:
        return CombinedTeachers(pools, config.mixture)
    return RoutedTeachers(pools) if config.teachers else pools[""]
