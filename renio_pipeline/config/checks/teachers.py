"""Teachers, by themselves and as many."""

from __future__ import annotations

import re

from renio_pipeline.config import schema
from renio_pipeline.config.mixture import check_sources
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.teachers.recorded_teachers import check_recorded
from renio_pipeline.config.teachers.served_teachers import check_served


def check_teachers(c: RunConfig) -> None:
    """One teacher or several, and each by itself."""
    if c.teachers is not None and c.teacher != schema.Teacher():
        raise ValueError("teacher and teachers are both given: one teacher for every row, or one for each group of rows")
    if c.teachers == {}:
        raise ValueError("teachers: names no teacher; give at least one, or use teacher")
    for name in {**(c.teachers or {}), **c.pools.teachers}:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"teachers.{name}: a teacher's name has letters, digits, _ and - only")
    unknown = sorted(c.pools.teachers.keys() - (c.teachers or {}).keys())
    if unknown:
        raise ValueError(f"pools.teachers.{unknown[0]}: there is no teacher of this name in teachers")
    for name, teacher in c.all_teachers.items():
        _teacher(c, name, teacher)


def _teacher(c: RunConfig, name: str, teacher: schema.Teacher) -> None:
    section = c.teacher_key(name)
    check_served(c, name)
    check_recorded(c, name)
    if teacher.type == "torch" and (teacher.tensor_parallel > 1 or teacher.engine or teacher.separate_process):
        raise ValueError(
            f"{section}.tensor_parallel, {section}.engine and {section}.separate_process are vLLM's; a torch teacher has none "
            f"of them: set {section}.type=vllm"
        )
    if teacher.type == "vllm" and teacher.attention != "sdpa":
        raise ValueError(f"{section}.attention is a torch teacher's; vLLM chooses its own: set {section}.type=torch")


def check_sources_of(c: RunConfig) -> None:
    """``data.sources`` and the teachers that they name."""
    check_sources(c.data, list(c.teachers or {}) if c.routed else [])
