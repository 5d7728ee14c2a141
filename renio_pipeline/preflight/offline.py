"""What can be checked on a machine without a network, or without some of the models and files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import parts
from renio_pipeline.config.schema import ProblemSource
from renio_pipeline.data.problems import problems_of
from renio_pipeline.models import info
from renio_pipeline.models.folder import check_weights
from renio_pipeline.preflight import prepare
from renio_pipeline.preflight.models import student_of, teacher_of
from renio_pipeline.stages.recorded_inputs import open_recordings
from renio_pipeline.tasks import make_task


def check_offline(config: RunConfig) -> tuple[tuple[str, ...], list[str]]:
    """Check what this machine can know of a configuration without a network; what is left out of its data, and what was not
    checked.

    Raises:
        ConfigError: as ``prepare`` does, of the models and files that are here.
    """
    unseen = not_here(config)
    inspect = partial(info.inspect, weights=False)
    if not unseen:
        return prepare(config, inspect).notes, [*_without_weights(config), "the cluster"]
    task = make_task(*config.task_recipe)
    notes: tuple[str, ...] = ()
    absent = {what.partition(":")[0] for what in unseen}
    if not any(key.startswith("data.") and key.endswith(".path") for key in absent):
        held_out_too = not any(key.endswith(".held_out_path") for key in absent)
        without = {} if held_out_too else {"evaluate": config.evaluate.model_copy(update={"problems": 0})}
        training, held_out = problems_of(config.model_copy(update=without), task)
        notes = (*training.notes, *held_out.notes)
    recordings_here = not any(config.teacher_key(name, "path") in absent for name in config.recorded_teachers)
    if info.is_cached(config.student):
        student = student_of(config, inspect)
        if recordings_here:
            open_recordings(config, student)
        for name in config.live_teachers:
            if info.is_cached(config.teacher_model(name)):
                teacher_of(config, name, student, inspect)
    if recordings_here and config.recorded_teachers and not info.is_cached(config.student):
        unseen.append("the recordings: they are compared with the student's tokenizer")
    needs_all = "prompt lengths, vocabulary and payload, which need all of them"
    return notes, [*unseen, *_without_weights(config), needs_all, "the cluster"]


def not_here(config: RunConfig) -> list[str]:
    """Which models and files of a configuration this machine does not have, as ``key: name``; no network is asked."""
    missing = [f"{key}: {name}" for key, name in _models(config).items() if not info.is_cached(name)]
    sections: dict[str, ProblemSource] = {part.key: part.section for part in parts(config.data)}
    sections = sections or {"data": config.data}
    files = {f"{key}.{name}": getattr(of, name) for key, of in sections.items() for name in ("path", "held_out_path")}
    files |= {config.teacher_key(name, "path"): folder for name, folder in config.recorded_teachers.items()}
    return missing + [f"{key}: {path}" for key, path in files.items() if path and not Path(path).exists()]


def _models(config: RunConfig) -> dict[str, str]:
    """The names of the models, by the first key that gives each."""
    teachers = {config.teacher_key(name, "model"): config.teacher_model(name) for name in config.live_teachers}
    return {"student": config.student} | {key: model for key, model in teachers.items() if model != config.student}


def _without_weights(config: RunConfig) -> list[str]:
    """Which model folders lack weights, or have not all of them, and why."""
    found: list[str] = []
    served = {config.teacher_key(name, "model") for name, teacher in config.all_teachers.items() if teacher.type == "http"}
    for key, name in _models(config).items():
        if key in served:
            continue
        try:
            if info.is_local(name):
                check_weights(Path(info.resolve(name)), key)
        except ConfigError as error:
            found.append(str(error))
    return found
