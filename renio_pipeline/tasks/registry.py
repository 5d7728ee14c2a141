"""The registry of tasks: from a name, or a file of the user's, to a task."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.mixture import TaskMix
from renio_pipeline.config.nearest import choice
from renio_pipeline.config.own.own_file import OwnFile, is_own
from renio_pipeline.tasks.mixed import MixedTask
from renio_pipeline.tasks.options import constructed
from renio_pipeline.tasks.own import own_task
from renio_pipeline.tasks.protocol import Task

REGISTRY = {
    "arithmetic": "renio_pipeline.tasks.arithmetic:Arithmetic",
    "plain": "renio_pipeline.tasks.plain:Plain",
    "maths": "renio_pipeline.tasks.maths:Maths",
    "code": "renio_pipeline.tasks.code:Code",
    "reasoning-gym": "renio_pipeline.tasks.gym:ReasoningGym",
}


def make_task(name: str | OwnFile | TaskMix, options: Mapping[str, Any] | None = None) -> Task:
    """Make the task that the configuration names.

    Args:
        name: the key ``task``: a registered name or ``path.py:Class``; or a user's file as it was read, see
            ``RunConfig.task_source``; or the tasks of several sources, see ``RunConfig.task_recipe``.
        options: the key ``task_options``: keyword arguments of the task's constructor.

    Raises:
        ConfigError: the name is unknown, the file is not usable, or the task has no such option.
    """
    if isinstance(name, TaskMix):
        mixed: Task = MixedTask({source: make_task(*recipe) for source, recipe in name.recipes.items()})
        mixed.recipe = name, {}
        return mixed
    source = OwnFile.read(name, "task") if isinstance(name, str) and is_own(name) else name
    task = _made(source, options or {})
    task.recipe = source, dict(options or {})
    return task


def _made(name: str | OwnFile, options: Mapping[str, Any]) -> Task:
    if isinstance(name, OwnFile):
        return own_task(name, options)
    if name not in REGISTRY:
        raise ConfigError(f"task: {name!r} is not known; {choice(name, REGISTRY)}, or your own file, path.py:Class")
    module, _, cls = REGISTRY[name].partition(":")
    task: Task = constructed(getattr(import_module(module), cls), options, name)
    return task
