"""Which configurations may mix the probabilities of several teachers: ``combine``."""

from __future__ import annotations

import math

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.nearest import choice
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.sections import SAMPLED


def check_combine(c: RunConfig) -> None:
    """Raises ValueError for a mixture that is none, or that the run cannot compute."""
    if c.combine is None:
        return
    if not c.teachers:
        raise ValueError("combine: mixes the probabilities of several teachers, and there is one; list them in teachers")
    for name, weight in c.combine.items():
        if name not in c.teachers:
            raise ValueError(f"combine.{name}: there is no teacher of this name; {choice(name, list(c.teachers))}")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(
                f"combine.{name}: a weight must be above 0, not {weight:g}; a teacher that is not to count is left out of "
                "teachers and combine"
            )
    if missing := [name for name in c.teachers if name not in c.combine]:
        raise ValueError(
            f"combine: gives teacher {missing[0]!r} no weight, so it would be loaded for nothing; give it one, or leave it out "
            "of teachers"
        )
    for i, source in enumerate(c.data.sources or ()):
        if source.teacher is not None:
            raise ValueError(
                f"data.sources.{i}.teacher: with combine all teachers score every sample; leave one of the two out"
            )
    if c.reason_first is not None:
        raise ValueError(
            "method.reason_first: one teacher writes the analysis, and combine mixes several; leave one of the two out"
        )
    if c.objective.payload != SAMPLED and not c.objective.mixes:
        raise ValueError(
            f"combine: objective {c.objective.label} reads the payload of one teacher (its class variable mixes is false); "
            "choose top_k_forward_kl, jsd or sampled"
        )


def check_one_each(config: RunConfig, command: str) -> None:
    """Raises ConfigError for a mixture of teachers, of which ``command`` examines one at a time."""
    if config.combine is not None:
        raise ConfigError(f"combine: {command} examines the teachers one at a time; set combine=null and one `teacher` for it")
