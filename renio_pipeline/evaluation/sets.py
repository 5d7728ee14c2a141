"""The data sets of an evaluation, read and checked before any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import parts
from renio_pipeline.config.schema import Prompts, Source
from renio_pipeline.data.mixing.origins import ProblemOrigin, origins_of
from renio_pipeline.data.problems import SHOWN, left_out
from renio_pipeline.data.rows import Rows
from renio_pipeline.data.sources import HELD_OUT, load_rows
from renio_pipeline.evaluation.models import named
from renio_pipeline.evaluation.suites import suite, suites
from renio_pipeline.grading.screening import RowScreening
from renio_pipeline.tasks import Task, make_task
from renio_pipeline.types import Row

OWN = "held-out"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Problems that can be graded, and the number of responses to each."""

    name: str
    source: str  # the origin, as the results name it
    task: Task
    rows: Sequence[Row]
    samples: int  # n: responses per problem
    notes: tuple[str, ...] = ()
    prompts: Prompts | None = None  # how its problems are asked; None: as the run's are


def data_sets(
    config: RunConfig, from_suites: Sequence[str], own: Sequence[str], *, samples: int | None, limit: int | None
) -> list[DataSet]:
    """The data sets named by ``--suite`` and ``--data``, or else ``evaluate.suites``, or the configuration's held-out problems.

    Args:
        from_suites: ``NAME``, from the hub, or ``NAME=PATH``, from a local copy.
        own: ``NAME=PATH``: a file, folder or hub name, with the task and the fields of ``config``, or of its source ``NAME``.
        samples: responses per problem; None: ``evaluate.samples``, or the suite's own number, or 1.
        limit: use only this many of each data set's usable problems, from the start.

    Raises:
        ConfigError: a suite is unknown, or a data set cannot be read, or none of its problems can be graded.
    """
    samples = samples or config.evaluate.samples
    key = "--suite" if from_suites or own else "evaluate.suites"
    from_suites = from_suites if from_suites or own else config.evaluate.suites
    if not (from_suites or own):
        return _held_out_sets(config, samples or 1, limit)
    chosen = named([s if "=" in s or s not in suites() else f"{s}={s}" for s in from_suites], key)
    for name in chosen:
        suite(name, key)  # check every name first: a copy may take minutes to read
    files = named(own, "--data")
    if both := [name for name in files if name in chosen]:
        raise ConfigError(f"--data: {both[0]!r} is also the name of a suite; rename it, as in --data mine={files[both[0]]}")
    found = [_suite(config, name, path if path != name else None, samples, limit) for name, path in chosen.items()]
    return found + [_file(config, name, path, samples or 1, limit) for name, path in files.items()]


def _suite(config: RunConfig, name: str, path: str | None, samples: int | None, limit: int | None) -> DataSet:
    entry, key = suite(name), f"suites.{name}.path"
    options = entry.task_options | (config.task_options if config.task == entry.task else {})  # such as sandbox=weak
    task, rows = make_task(entry.task, options), entry.rows(path, key)
    return _usable(name, path or entry.path, task, rows, samples or entry.samples, limit, key)


def _file(config: RunConfig, name: str, path: str, samples: int, limit: int | None) -> DataSet:
    """With the task and the fields of the run; of several sources, those of the one that has the name."""
    whole = make_task(*config.task_recipe)
    found = next((origin for origin in origins_of(config, whole) if origin.part is None or origin.part.name == name), None)
    if found is None:
        names = ", ".join(part.name for part in parts(config.data))
        raise ConfigError(f"--data: {name!r} is the name of none of data.sources, which says how it is read; use {names}")
    data = found.section
    source = Source(path=path, fields=data.fields, preset=data.preset)
    if not Path(path).is_file():
        source = source.model_copy(update={"subset": data.subset, "split": data.held_out_split or data.split})
    rows = load_rows(source, key=f"{found.key}.path", optional=HELD_OUT)
    usable = _usable(name, path, found.task, rows, samples, limit, f"--data {name}")
    return replace(usable, prompts=found.prompts)


def _held_out_sets(config: RunConfig, samples: int, limit: int | None) -> list[DataSet]:
    """The held-out problems of the run; of each of its sources that has some."""
    if not config.evaluate.problems:
        raise ConfigError("evaluate.problems: 0 leaves nothing to evaluate; set it to a number of held-out problems")
    limit = min(config.evaluate.problems, limit or config.evaluate.problems)
    origins = origins_of(config, make_task(*config.task_recipe))
    found = [_held_out(config, origin, samples, limit) for origin in origins if origin.has_held_out]
    if not found:
        raise ConfigError("evaluate.problems: no source has held-out problems; give one a held_out_path")
    return found


def _held_out(config: RunConfig, origin: ProblemOrigin, samples: int, limit: int) -> DataSet:
    section, task, key = origin.section, origin.task, f"{origin.key}.held_out_path"
    name = origin.part.name if origin.part else OWN
    if not section.held_out_path:
        made_by = (origin.part and origin.part.section.task) or config.task
        rows = task.rows("held_out", limit)[:limit]
        found = DataSet(name=name, source=f"task {made_by}", task=task, rows=rows, samples=samples)
    else:
        source = section.model_copy(update={"path": section.held_out_path, "split": section.held_out_split or section.split})
        read = load_rows(source, key=key, optional=HELD_OUT)
        found = _usable(name, section.held_out_path, task, read, samples, limit, key)
    return replace(found, prompts=origin.prompts)


def _usable(name: str, source: str, task: Task, rows: Rows, samples: int, limit: int | None, key: str) -> DataSet:
    """The rows whose answers the task can use. Raises ConfigError if there are none."""
    kept: list[Row] = []
    reasons: list[str] = []
    with RowScreening(task) as screening:
        for row, fault in zip(rows, screening.faults(rows, graded=True), strict=True):
            if fault is None:
                kept.append(row)
            else:
                reasons.append(f"{rows.where(row)}: {fault}")
            if len(kept) == limit:
                break
    if not kept:
        raise ConfigError(f"{key}: none of the {len(rows)} problems can be graded; first: {'; '.join(reasons[:SHOWN])}")
    notes: tuple[str, ...] = ()
    if reasons:
        said = left_out(len(reasons), len(reasons) + len(kept), "they cannot be graded", reasons[:SHOWN])
        notes = (f"{name}: {said}",)
    return DataSet(name=name, source=source, task=task, rows=kept, samples=samples, notes=notes)
