"""Several sources of problems in one run, mixed by weight: ``data.sources``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.config.nearest import choice
from renio_pipeline.config.own.own_file import OwnFile
from renio_pipeline.config.schema import Data, MixedSource, ProblemSource, Prompts, Source

_ONE_SOURCE = tuple(ProblemSource.model_fields)  # keys that each source has for itself
_ENDINGS = re.compile(r"\.(jsonl|json|csv|tsv|parquet|py)(\.(gz|zst))?(:.*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A source that takes part in the mixture."""

    name: str
    key: str  # where the user writes it: ``data.sources.1``
    section: MixedSource
    share: float  # of the prompts


@dataclass(frozen=True, slots=True)
class TaskMix:
    """What ``renio_pipeline.tasks.make_task`` makes the task of several sources from: its arguments, by their names."""

    recipes: Mapping[str, tuple[str | OwnFile, Mapping[str, Any]]]


Recipe = tuple[str | OwnFile | TaskMix, dict[str, Any]]  # the arguments of ``make_task``


def parts(data: Data) -> list[Part]:
    """The sources with a weight above 0, by name, so that their place in the list means nothing; empty for a single source."""
    weighed = [(i, section) for i, section in enumerate(data.sources or ()) if section.weight > 0]
    total = sum(section.weight for _, section in weighed)
    found = [
        Part(name=name_of(section), key=f"data.sources.{i}", section=section, share=section.weight / total)
        for i, section in weighed
    ]
    return sorted(found, key=lambda part: part.name)


def left_out(data: Data) -> tuple[str, ...]:
    """Notes on sources with weight 0."""
    found = [f"data.sources.{i}" for i, section in enumerate(data.sources or ()) if not section.weight]
    return tuple(f"{key}.weight: 0, so this source is left out" for key in found)


def prompts_of_sources(data: Data) -> dict[str, Prompts]:
    """The section ``prompts`` of each source that has its own, by the source's name."""
    return {part.name: part.section.prompts for part in parts(data) if part.section.prompts is not None}


def name_of(section: MixedSource) -> str:
    """The name that the user gave, or else that of the file, the folder, the data set or the task."""
    if section.name is not None:
        return section.name
    given = section.path or section.task or "task"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", _ENDINGS.sub("", Path(given).name)).strip("-._")
    return name or "source"


def check_sources(data: Data, teachers: Sequence[str]) -> None:
    """Raises ValueError for sources that cannot be mixed. ``teachers``: the names of several; empty: there is one."""
    if data.sources is None:
        return
    if not data.sources:
        raise ValueError("data.sources: names no source; give at least one, or use data.path")
    plain = ProblemSource()
    for key in _ONE_SOURCE:
        if getattr(data, key) != getattr(plain, key):
            raise ValueError(f"data.{key} and data.sources are both given; each source has a {key} of its own: move it there")
    if not any(section.weight for section in data.sources):
        raise ValueError("data.sources: the weight of every source is 0, so there is nothing to draw; raise one")
    names: dict[str, int] = {}
    places: dict[tuple[Any, ...], int] = {}
    for i, section in enumerate(data.sources):
        key = f"data.sources.{i}"
        _check_source(section, key, teachers)
        if (first := names.setdefault(name_of(section), i)) != i:
            raise ValueError(
                f"{key}.name: {name_of(section)!r} is the name of data.sources.{first} too; give one of them another name"
            )
        if section.path is not None and (first := places.setdefault(_place(section), i)) != i:
            raise ValueError(
                f"{key}.path: {section.path} is the path of data.sources.{first} too, so its rows would be drawn twice; raise "
                "that one's weight instead"
            )


def _check_source(section: MixedSource, key: str, teachers: Sequence[str]) -> None:
    if section.path is None and section.task is None:
        raise ValueError(f"{key}.path: required, unless {key}.task names a task that makes its problems")
    if section.teacher is None:
        return
    if not teachers:
        raise ValueError(f"{key}.teacher: {section.teacher!r} is given, and the run has one teacher alone; list it in teachers")
    if section.teacher not in teachers:
        raise ValueError(f"{key}.teacher: {section.teacher!r} is not in teachers; {choice(section.teacher, teachers)}")
    if "teacher" in section.fields:
        raise ValueError(
            f"{key}.teacher names the teacher of every row, and {key}.fields.teacher a field in which each row names its own; "
            "leave one of them out"
        )


def _place(source: Source) -> tuple[Any, ...]:
    path = Path(str(source.path))
    return str(path.resolve()) if path.exists() else source.path, source.subset, source.split, *sorted(source.only.items())
