"""Everything that can be found wrong before an engine starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline import models
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data import TRAINING, read_rows
from renio_pipeline.prompts import Encoder, check_lengths
from renio_pipeline.schema import Opsd
from renio_pipeline.tasks import Split, Task, make_task
from renio_pipeline.types import Row

Inspect = Callable[[str, str], models.ModelInfo]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked run: its data, encoded, and the sizes that the engines are built with."""

    task: Task
    tokenizer: Any
    rows: list[Row]
    prompt_ids: list[np.ndarray]
    teacher_ids: list[np.ndarray]  # of each row, the teacher's own prompt
    held_out: list[Row]
    held_out_ids: list[np.ndarray]
    vocab_size: int  # V: the smaller of the two models' output rows
    context: int  # tokens of the longest prompt, a whole response, and the one token that scoring adds
    payload_token_bytes: dict[str, int]  # of a response token, by teacher
    payload_bytes: int  # the most that a step can take


def prepare(config: RunConfig, inspect: Inspect = models.inspect) -> Prepared:
    """Check a configuration against its models and data.

    Args:
        inspect: reads a model by (name, key); for hub names the caller may run it on another node.

    Raises:
        ConfigError: names the key, what was given and what is allowed.
    """
    task = make_task(config.task)
    rows = _rows(config, task, "train")
    _check_filter(config, task, rows)
    _check_routes(config, rows)
    held_out = _rows(config, task, "held_out")[: config.evaluate.problems] if config.evaluate.problems else []
    if held_out and all(task.verify(row, "") is None for row in held_out):
        raise ConfigError(
            f"data.held_out_path: no row of {config.data.held_out_path} has an answer that task {task.name} can verify; "
            "give them answers, or set evaluate.problems=0"
        )
    student = inspect(config.student, "student")
    if config.trainer.lora is not None:
        models.check_lora_targets(config.student, config.trainer.lora.targets)
    teachers = {name: _teacher(config, name, student, inspect) for name in config.all_teachers}
    vocab_size = min(m.vocab_rows for m in (student, *teachers.values()))
    if config.teacher_top_k >= vocab_size:
        raise ConfigError(f"objective.k: {config.teacher_top_k} must be below the vocabulary's {vocab_size} entries")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.resolve(config.student))
    if tokenizer.chat_template is None:
        raise ConfigError(f"student: the tokenizer of {config.student!r} has no chat template")
    encoder = Encoder(tokenizer, task, plain=config.data.student_prompt == "plain")
    thinking = False if isinstance(config.method, Opsd) else None
    prompt_ids, held_out_ids = encoder.encode(rows, thinking=thinking), encoder.encode(held_out, thinking=thinking)
    _check_solutions(config, rows)
    teacher_ids = prompt_ids
    if config.privileged:
        teacher_ids = encoder.encode(rows, privileged=True, thinking=True if isinstance(config.method, Opsd) else None)
    asked = [*prompt_ids, *held_out_ids, *teacher_ids]
    _check_vocabulary(asked, [*rows, *held_out, *rows], tokenizer, vocab_size)
    limit = min(student, *teachers.values(), key=lambda m: m.context)
    longest = check_lengths(asked, [*rows, *held_out, *rows], limit.context, config.max_response_tokens, limit.name)
    token_bytes = {name: payload_token_bytes(config, name, model.hidden_size) for name, model in teachers.items()}
    payload_bytes = config.batch_size * config.max_response_tokens * max(token_bytes.values())
    _check_payload(config, payload_bytes)
    return Prepared(
        task=task, tokenizer=tokenizer, rows=rows, prompt_ids=prompt_ids, teacher_ids=teacher_ids, held_out=held_out,
        held_out_ids=held_out_ids, vocab_size=vocab_size, context=longest + config.max_response_tokens + 1,
        payload_token_bytes=token_bytes, payload_bytes=payload_bytes,
    )  # fmt: skip


def _check_filter(config: RunConfig, task: Task, rows: list[Row]) -> None:
    """Raises ConfigError for a row that a filter by verdict can never judge."""
    unknown = next((row for row in rows if task.verify(row, "") is None), None) if config.filter != "all" else None
    if unknown is not None:
        raise ConfigError(
            f"filter: {config.filter} needs verdicts, and {_where(config, unknown)} has no answer that task {task.name} can "
            "verify (data.fields.answer names it); give every row its answer, or set filter=all"
        )


def _check_routes(config: RunConfig, rows: list[Row]) -> None:
    """Raises ConfigError for a row that names none of several teachers."""
    lost = next((row for row in rows if row.teacher not in config.teachers), None) if config.teachers else None
    if lost is not None:
        names = "names no teacher" if lost.teacher is None else f"names teacher {lost.teacher!r}"
        raise ConfigError(
            f"teachers: {_where(config, lost)} {names}; teachers has {', '.join(config.teachers or ())}, and "
            f"{config.data.fields.get('teacher', 'teacher')!r} is the row's field (data.fields.teacher names another)"
        )


def _teacher(config: RunConfig, name: str, student: models.ModelInfo, inspect: Inspect) -> models.ModelInfo:
    """A teacher's sizes. Raises ConfigError if its tokenizer is not the student's."""
    key, model = config.teacher_key(name, "model"), config.teacher_model(name)
    teacher = student if model == config.student else inspect(model, key)
    models.check_tokenizers(student, teacher, key)
    return teacher


def _where(config: RunConfig, row: Row) -> str:
    return f"{config.data.path}, line {row.line}" if row.line else f"row {row.id!r}"


def _check_solutions(config: RunConfig, rows: list[Row]) -> None:
    """Raises ConfigError for a row without the solution that its teacher is shown."""
    without = next((row for row in rows if row.solution is None), None) if config.privileged else None
    if without is not None:
        key = "method.type opsd" if isinstance(config.method, Opsd) else "method.privileged"
        raise ConfigError(
            f"data.path: {_where(config, without)} has no solution, which {key} shows the teacher "
            "(data.fields.solution names it)"
        )


def _check_vocabulary(asked: list[np.ndarray], rows: list[Row], tokenizer: Any, vocab_size: int) -> None:
    """Raises ConfigError for a token that the smallest output head does not have: engines read past its end unnoticed."""
    for ids, row in zip(asked, rows, strict=True):
        if len(ids) and ids.max() >= vocab_size:
            token = tokenizer.convert_ids_to_tokens(int(ids.max()))
            raise ConfigError(
                f"student, teacher.model: the prompt of row {row.id!r} has token {token!r}, id {ids.max()}, but the smaller of "
                f"their output heads has {vocab_size} rows; choose a teacher whose vocabulary holds the student's"
            )
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id >= vocab_size:
        raise ConfigError(
            f"student, teacher.model: the end token, id {tokenizer.eos_token_id}, lies outside of the {vocab_size} rows that "
            "their output heads share, so that no response would ever end; choose another teacher"
        )


def _rows(config: RunConfig, task: Task, split: Split) -> list[Row]:
    data = config.data
    if split == "train":
        optional = (*TRAINING, "teacher") if config.teachers else TRAINING
        return read_rows(data.path, data.fields, optional=optional) if data.path else task.rows(split, data.problems)
    if data.held_out_path:
        return read_rows(data.held_out_path, data.fields, key="data.held_out_path", optional=("answer",))
    return task.rows(split, config.evaluate.problems)


def check_offline(config: RunConfig) -> list[str]:
    """Check what this machine can know of a configuration without a network, and return what it could not.

    Raises:
        ConfigError: as ``prepare`` does, of the models and files that are here.
    """
    unseen = not_here(config)
    if not unseen:
        prepare(config)
        return ["the cluster"]
    task = make_task(config.task)
    if not any(what.startswith("data.path") for what in unseen):
        rows = _rows(config, task, "train")
        _check_filter(config, task, rows)
        _check_routes(config, rows)
        _check_solutions(config, rows)
    if models.is_cached(config.student):
        student = models.inspect(config.student, "student")
        if config.trainer.lora is not None:
            models.check_lora_targets(config.student, config.trainer.lora.targets)
        for name in config.all_teachers:
            if models.is_cached(config.teacher_model(name)):
                _teacher(config, name, student, models.inspect)
    return [*unseen, "prompt lengths, vocabulary and payload, which need all of them", "the cluster"]


def not_here(config: RunConfig) -> list[str]:
    """Which models and files of a configuration this machine does not have, as ``key: name``; no network is asked."""
    names = {"student": config.student}
    names |= {
        config.teacher_key(name, "model"): model
        for name in config.all_teachers
        if (model := config.teacher_model(name)) != config.student
    }
    missing = [f"{key}: {name}" for key, name in names.items() if not models.is_cached(name)]
    files = {"data.path": config.data.path, "data.held_out_path": config.data.held_out_path}
    return missing + [f"{key}: {path}" for key, path in files.items() if path and not Path(path).exists()]


def payload_token_bytes(config: RunConfig, teacher: str, teacher_hidden_size: int) -> int:
    """What the teacher's payload takes for a token: an id and a log-probability for each of K+1, or H' values."""
    if config.payload_kind == "hidden":
        return teacher_hidden_size * (4 if config.all_teachers[teacher].dtype == "float32" else 2)
    return (config.teacher_top_k + 1) * 8 if config.payload_kind == "top_k" else 0


def _check_payload(config: RunConfig, payload_bytes: int) -> None:
    if payload_bytes > config.payload.max_bytes:
        raise ConfigError(
            f"payload.max_bytes: a step's {config.payload_kind} may take {payload_bytes} bytes (batch_size x "
            f"max_response_tokens x bytes per token), and payload.max_bytes is {config.payload.max_bytes}; raise it, or lower "
            "batch_size or objective.k"
        )


def check_run_dir(config: RunConfig, *, resume: bool = False) -> None:
    """Raises ConfigError if the run directory cannot be made, or belongs to a run already and this one does not ``resume``."""
    folder = config.directory
    key = "run_dir" if config.run_dir else "name"
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {folder} cannot be made: {parent} is not a folder that this user can write to")
    if folder.exists() and (not folder.is_dir() or (not resume and any(folder.iterdir()))):
        raise ConfigError(
            f"{key}: {folder} is another run's directory (it is not empty); choose another run_dir or name, or go on with that "
            "run by --resume"
        )
