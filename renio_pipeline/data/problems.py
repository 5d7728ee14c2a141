"""The problems of a run: read, checked against its configuration, with notes on what is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import left_out as no_weight
from renio_pipeline.config.schema import Opsd
from renio_pipeline.data.mixing.mixed_rows import Joined
from renio_pipeline.data.mixing.origins import ProblemOrigin, origins_of
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
    parts: tuple[Problems, ...] = ()  # of several sources: each one's, in the order of ``config.mixture.parts``


def problems_of(config: RunConfig, task: Task) -> tuple[Problems, Problems]:
    """The problems to train on, and the first ``evaluate.problems`` of the held-out ones, of each source.

    Training problems that are also held out are kept, and a note counts them.

    Raises:
        ConfigError: the problems cannot be read, none can be graded, or one lacks a field that the configuration needs.
    """
    origins = origins_of(config, task)
    with RowScreening(task) as screening:
        found = [_training(config, origin, screening) for origin in origins]
        for origin, problems in zip(origins, found, strict=True):
            _check(config, origin, screening, problems.rows)
        held = [_held_out(config, origin, screening) for origin in origins]
    training, held_out = joined(_names(origins), found), joined(_names(origins), held)
    if config.evaluate.problems and not len(held_out.rows):
        raise ConfigError("evaluate.problems: no source has held-out problems; give one a held_out_path, or set it to 0")
    asked, count = {_fingerprint(row) for row in held_out.rows}, 0
    shared: list[Row] = []
    for row in training.rows if asked else ():
        if _fingerprint(row) in asked:
            count += 1
            shared = [*shared, row][:SHOWN]
    notes = (*training.notes, *no_weight(config.data))
    if count:
        notes += (
            f"warning: {count} of {len(training.rows)} training problems are also held out, so the held-out accuracy is less "
            f"meaningful; first: {'; '.join(training.rows.where(row) for row in shared)}",
        )
    return replace(training, notes=notes), held_out


def _names(origins: Sequence[ProblemOrigin]) -> list[str]:
    return [origin.part.name for origin in origins if origin.part is not None]


def joined(names: Sequence[str], found: Sequence[Problems]) -> Problems:
    """The problems of several sources as one; those of a single one as they are.

    Args:
        names: of the sources; empty: there is a single one.
    """
    if not names:
        return found[0]
    rows = Joined([(name, problems.rows) for name, problems in zip(names, found, strict=True)])
    return Problems(rows=rows, notes=tuple(note for problems in found for note in problems.notes), parts=tuple(found))


def first_rows(config: RunConfig, task: Task, count: int) -> list[Row]:
    """The first training problems of each source, as they are: whether they can be graded is not tried. Raises ConfigError."""
    found: list[Row] = []
    for origin in origins_of(config, task):
        if origin.section.path is None:
            found += origin.made("train", count)
            continue
        rows = origin.named(load_rows(origin.section, key=f"{origin.key}.path", optional=TRAINING))
        some = rows[:count]
        for row in some if config.privileged else ():
            _check_teaching(config.model_copy(update={"teachers": None}), origin, rows, row)
        found += some
    return found


def _training(config: RunConfig, origin: ProblemOrigin, screening: RowScreening) -> Problems:
    section = origin.section
    if section.path is not None:
        routed = config.routed and not (origin.part and origin.part.section.teacher)
        optional = (*TRAINING, "teacher") if routed else TRAINING
        key = f"{origin.key}.path"
        found = _usable(origin, screening, origin.named(load_rows(section, key=key, optional=optional)), key)
        if not config.privileged and found.rows[0].teacher_prompt:
            said = f"{key}: rows have a teacher_prompt, which is ignored unless method.privileged is true or method.type opsd"
            return replace(found, notes=(*found.notes, said))
        return found
    made = origin.made("train", section.problems)
    if not len(made):
        raise ConfigError(f"task: {config.task} generated no problems to train on")
    return Problems(rows=made)


def _held_out(config: RunConfig, origin: ProblemOrigin, screening: RowScreening) -> Problems:
    wanted, section = config.evaluate.problems, origin.section
    if not wanted or not origin.has_held_out:
        return Problems(rows=origin.named(Made([])))
    key = f"{origin.key}.held_out_path"
    if section.held_out_path:
        changed = {"path": section.held_out_path, "split": section.held_out_split or section.split}
        found = load_rows(section.model_copy(update=changed), key=key, optional=HELD_OUT)
        problems = _usable(origin, screening, origin.named(found), key, wanted)
    else:
        problems = Problems(rows=origin.made("held_out", wanted))
    first, others = problems.rows[:1], problems.rows[1:]  # usually the first row has a verdict, and one worker is enough
    if all(verdict is None for rows in (first, others) for verdict in screening.verdicts(rows)):
        raise ConfigError(
            f"{key}: no row of {section.held_out_path} has an answer that task {origin.task.name} can verify; "
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


def _usable(origin: ProblemOrigin, screening: RowScreening, rows: Rows, key: str, wanted: int | None = None) -> Problems:
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
            f"{key}: none of the {len(rows)} problems can be graded by task {origin.task.name} ({origin.key}.fields.answer "
            f"names another field); first: {'; '.join(found)}"
        )
    if len(kept) == len(rows):
        return Problems(rows=rows, notes=rows.notes)
    note = (left_out(count, len(kept) + count, f"their answers cannot be used ({key})", found),) if count else ()
    return Problems(rows=Chosen(rows, np.asarray(kept, np.int64)), notes=(*rows.notes, *note))


def _fingerprint(row: Row) -> bytes:
    """A hash of the problem's text, ignoring white space and case."""
    return hashlib.blake2b(" ".join(row.problem.split()).casefold().encode(), digest_size=16).digest()


def _check(config: RunConfig, origin: ProblemOrigin, screening: RowScreening, rows: Rows) -> None:
    """Raises ConfigError for a row that cannot be judged, routed, or shown to its teacher as the configuration says."""
    # The first row in any case: a user's own task that raises or hangs must do so now, not hours later.
    needs = _what_needs_verdicts(config)
    judged = rows if needs else rows[:1]
    for row, verdict in zip(judged, screening.verdicts(judged), strict=True):
        if needs and verdict is None:
            what, instead = needs
            raise ConfigError(
                f"{what} needs verdicts, and {rows.where(row)} has no answer that task {origin.task.name} can verify "
                f"({origin.key}.fields.answer names it); give every row its answer, or {instead}"
            )
    for row in rows if config.routed or config.privileged else ():
        _check_teaching(config, origin, rows, row)
    for row in rows if config.trains_on_solutions else ():
        if not (row.solution or "").strip():
            what, instead = ("data.off_policy", "set data.off_policy.source=teacher, or leave data.off_policy out")
            if config.on_solutions:
                what, instead = "method sft", "leave such rows out, or set method.type=grpo, which needs answers alone"
            raise ConfigError(
                f"{origin.key}.path: {rows.where(row)} has no solution, which {what} trains on "
                f"({origin.key}.fields.solution names it); {instead}"
            )


def _what_needs_verdicts(config: RunConfig) -> tuple[str, str] | None:
    """Which choice of the configuration needs a verdict on every response, and what to do without."""
    if config.filter != "all":
        return f"filter: {config.filter}", "set filter=all"
    if config.method.needs_verdicts:
        return f"method: {config.method.type}", "set method.type=opd, which learns from a teacher"
    if config.reward.coefficient:
        return "reward.coefficient", "set it to 0"
    if config.weighting.wants_verdicts():
        return f"weighting: {config.weighting.label}", config.weighting.without_verdicts
    return None


def _shows_solution(config: RunConfig, origin: ProblemOrigin, row: Row) -> bool:
    """Whether a teacher is told the row's solution: in its prompt, or to analyse it."""
    if row.teacher_prompt:
        return False
    text = (origin.prompts or config.prompts).teacher
    return config.reason_first is not None or text is None or "{solution}" in text


def _check_teaching(config: RunConfig, origin: ProblemOrigin, rows: Rows, row: Row) -> None:
    where, key = rows.where(row), origin.key
    if config.routed and config.teachers and row.teacher not in config.teachers:
        names = "names no teacher" if row.teacher is None else f"names teacher {row.teacher!r}"
        whole = "" if origin.part is None else f"; {key}.teacher names one for all rows"
        raise ConfigError(
            f"teachers: {where} {names}; teachers has {', '.join(config.teachers)}, and "
            f"{origin.section.names.get('teacher', 'teacher')!r} is the row's field ({key}.fields.teacher names another){whole}"
        )
    if config.privileged and row.solution is None and _shows_solution(config, origin, row):
        shows = "method.type opsd" if isinstance(config.method, Opsd) else "method.privileged"
        instead = f"{key}.fields.solution names it; a row's own teacher_prompt does without"
        raise ConfigError(f"{key}.path: {where} has no solution, which {shows} shows the teacher ({instead})")
