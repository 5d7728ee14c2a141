"""The problems of a run: read, checked against its configuration, with notes on what is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Opsd
from renio_pipeline.data.rows import Chosen, Made, Rows
from renio_pipeline.data.sources import HELD_OUT, TRAINING, load_rows
from renio_pipeline.grading.screening import RowScreening
from renio_pipeline.tasks import Task
from renio_pipeline.types import Row

SHOWN = 3  # examples of the rows that are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """The rows that can be used, and notes for the user about the others."""

    rows: Rows
    notes: tuple[str, ...] = ()


def problems_of(config: RunConfig, task: Task) -> tuple[Problems, Problems]:
    """The problems to train on, and the first ``evaluate.problems`` of the held-out ones.

    Training problems that are also held out are kept, and a note counts them.

    Raises:
        ConfigError: the problems cannot be read, none can be graded, or one lacks a field that the configuration needs.
    """
    with RowScreening(task) as screening:
        training = _training(config, task, screening)
        _check(config, task, screening, training.rows)
        held_out = _held_out(config, task, screening)
    asked, count = {_fingerprint(row) for row in held_out.rows}, 0
    shared: list[Row] = []
    for row in training.rows if asked else ():
        if _fingerprint(row) in asked:
            count += 1
            shared = [*shared, row][:SHOWN]
    if not count:
        return training, held_out
    warning = (
        f"warning: {count} of {len(training.rows)} training problems are also held out, so the held-out accuracy is less "
        f"meaningful; first: {'; '.join(training.rows.where(row) for row in shared)}"
    )
    return Problems(rows=training.rows, notes=(*training.notes, warning)), held_out


def first_rows(config: RunConfig, task: Task, count: int) -> list[Row]:
    """The first training problems, as they are: whether they can be graded is not tried. Raises ConfigError."""
    if config.data.path is None:
        return task.rows("train", count)[:count]
    rows = load_rows(config.data, optional=TRAINING)
    found = [rows[i] for i in range(min(count, len(rows)))]
    for row in found if config.privileged else ():
        _check_teaching(config.model_copy(update={"teachers": None}), rows, row)
    return found


def _training(config: RunConfig, task: Task, screening: RowScreening) -> Problems:
    data = config.data
    if data.path is not None:
        optional = (*TRAINING, "teacher") if config.teachers else TRAINING
        return _usable(task, screening, load_rows(data, optional=optional), "data.path")
    made = task.rows("train", data.problems)
    if not made:
        raise ConfigError(f"task: {config.task} generated no problems to train on")
    return Problems(rows=Made(made))


def _held_out(config: RunConfig, task: Task, screening: RowScreening) -> Problems:
    wanted, data = config.evaluate.problems, config.data
    if not wanted:
        return Problems(rows=Made([]))
    if data.held_out_path:
        changed = {"path": data.held_out_path, "split": data.held_out_split or data.split}
        found = load_rows(data.model_copy(update=changed), key="data.held_out_path", optional=HELD_OUT)
        problems = _usable(task, screening, found, "data.held_out_path", wanted)
    else:
        problems = Problems(rows=Made(task.rows("held_out", wanted)[:wanted]))
    first, others = problems.rows[:1], problems.rows[1:]  # usually the first row has a verdict, and one worker is enough
    if all(verdict is None for rows in (first, others) for verdict in screening.verdicts(rows)):
        raise ConfigError(
            f"data.held_out_path: no row of {data.held_out_path} has an answer that task {task.name} can verify; "
            "give them answers, or set evaluate.problems=0"
        )
    return problems


def left_out(count: int, total: int, why: str, examples: Sequence[str]) -> str:
    """The note about problems that are left out.

    Args:
        count, total: problems that are left out, and all.
        examples: locations and reasons of the first few.
    """
    return f"{count} of {total} problems left out: {why}; first: {'; '.join(examples)}"


def _usable(task: Task, screening: RowScreening, rows: Rows, key: str, wanted: int | None = None) -> Problems:
    """The rows without a fault, at most ``wanted``. Raises ConfigError if there are none."""
    kept: list[int] = []
    found: list[str] = []
    count = 0
    for index, fault in enumerate(screening.faults(rows)):
        if fault is None:
            kept.append(index)
        else:
            count += 1
            found = [*found, f"{rows.where(rows[index])}: {fault}"][:SHOWN]
        if len(kept) == wanted:
            break
    if not kept:
        raise ConfigError(
            f"{key}: none of the {len(rows)} problems can be graded by task {task.name} (data.fields.answer names another "
            f"field); first: {'; '.join(found)}"
        )
    if len(kept) == len(rows):
        return Problems(rows=rows, notes=rows.notes)
    note = (left_out(count, len(kept) + count, f"their answers cannot be used ({key})", found),) if count else ()
    return Problems(rows=Chosen(rows, np.asarray(kept, np.int64)), notes=(*rows.notes, *note))


def _fingerprint(row: Row) -> bytes:
    """A hash of the problem's text, ignoring white space and case."""
    return hashlib.blake2b(" ".join(row.problem.split()).casefold().encode(), digest_size=16).digest()


def _check(config: RunConfig, task: Task, screening: RowScreening, rows: Rows) -> None:
    """Raises ConfigError for a row that cannot be judged, routed, or shown to its teacher as the configuration says."""
    # The first row in any case: a user's own task that raises or hangs must do so now, not hours later.
    judged = rows if config.filter != "all" else rows[:1]
    for row, verdict in zip(judged, screening.verdicts(judged), strict=True):
        if config.filter != "all" and verdict is None:
            raise ConfigError(
                f"filter: {config.filter} needs verdicts, and {rows.where(row)} has no answer that task {task.name} can "
                "verify (data.fields.answer names it); give every row its answer, or set filter=all"
            )
    for row in rows if config.teachers or config.privileged else ():
        _check_teaching(config, rows, row)


def _check_teaching(config: RunConfig, rows: Rows, row: Row) -> None:
    where = rows.where(row)
    if config.teachers and row.teacher not in config.teachers:
        names = "names no teacher" if row.teacher is None else f"names teacher {row.teacher!r}"
        raise ConfigError(
            f"teachers: {where} {names}; teachers has {', '.join(config.teachers)}, and "
            f"{config.data.names.get('teacher', 'teacher')!r} is the row's field (data.fields.teacher names another)"
        )
    if config.privileged and row.solution is None:
        key = "method.type opsd" if isinstance(config.method, Opsd) else "method.privileged"
        raise ConfigError(f"data.path: {where} has no solution, which {key} shows the teacher (data.fields.solution names it)")
