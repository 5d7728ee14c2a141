"""A run's pools of teachers as the one stage that a step calls."""

from __future__ import annotations

from collections.abc import Mapping

from renio_pipeline.alignment.retokeniser import Retokeniser
from renio_pipeline.config import RunConfig
from renio_pipeline.stages.other_tokenizer import OtherTokenizerTeachers, Quarantine
from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.stages.teacher_mixture import CombinedTeachers
from renio_pipeline.stages.teacher_routing import RoutedTeachers


def as_one_stage(
    config: RunConfig, pools: Mapping[str, Teachers], retokenisers: Mapping[str, Retokeniser], quarantine: Quarantine
) -> Teachers | None:
    """None where there are no teachers.

    Args:
        pools: of each teacher, by its name; a single one's is empty.
        retokenisers: of the teachers that have their own tokenizer.
        quarantine: see ``OtherTokenizerTeachers``.
    """
    if not pools:
        return None
    stages = dict(pools)
    for name, retokeniser in retokenisers.items():
        stages[name] = OtherTokenizerTeachers(pools[name], retokeniser, config.teacher_pools[name], quarantine)
    if config.mixture:
        return CombinedTeachers(stages, config.mixture)
    return RoutedTeachers(stages) if config.teachers else stages[""]
