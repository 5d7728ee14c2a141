"""Every check that can be made before an engine starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.alignment.retokeniser import Retokeniser
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import parts, prompts_of_sources
from renio_pipeline.config.schema import DTYPE_BYTES, Audience, ProblemSource
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.data.analyses import PLACEHOLDER, AnalysisPrompts
from renio_pipeline.data.chat_templates import check_variables, choose_template, end_warning, teacher_end_warning
from renio_pipeline.data.other_tokenizers import (
    ROOM,
    OtherTokenizer,
    TeacherEncoder,
    encoder_for,
    other_tokenizer,
    teacher_tokenizer,
)
from renio_pipeline.data.problems import Problems, joined, problems_of
from renio_pipeline.data.prompt_lengths import Bounds, check_end_token, fitting
from renio_pipeline.data.prompts import Cursor, Encoded, Encoder
from renio_pipeline.data.settling import settle
from renio_pipeline.data.solutions import Solutions
from renio_pipeline.data.template_clock import TemplateClock
from renio_pipeline.models import info
from renio_pipeline.models.adapters import read_adapter
from renio_pipeline.models.end_tokens import check_ends, end_pairs
from renio_pipeline.models.files import end_ids
from renio_pipeline.models.folder import check_weights, is_pickled
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.run_dir import lease_files
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.data_record import Stretch
from renio_pipeline.stages.recorded_inputs import MOST_CHECKED, check_prompts, check_vocab_size, open_recordings
from renio_pipeline.tasks import Task, make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import EndTokens, Prompt, Row

PROBES = "probes"  # in a run's directory: what renio probe found, before the run or later
Inspect = Callable[[str, str], info.ModelInfo]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked run: its data, which is read and encoded lazily, and the sizes that the engines are built with."""

    task: Task
    tokenizer: Any
    rows: Sequence[Row]
    prompt_ids: Sequence[np.ndarray]
    teacher_ids: Sequence[np.ndarray]  # of each row, the teacher's own prompt
    held_out: list[Row]
    held_out_ids: list[np.ndarray]
    vocab_size: int  # V: the smaller of the two models' output rows
    context: int  # tokens of the longest prompt, a whole response, and the one token that scoring adds
    payload_token_bytes: dict[str, int]  # of a response token, by teacher
    payload_bytes: int  # the most that a step can take
    stretch: Stretch = field(default_factory=Stretch)  # the order in which rows are drawn, and their fingerprints
    end_tokens: dict[str, EndTokens] = field(default_factory=dict)  # by teacher
    other_tokenizers: dict[str, OtherTokenizer] = field(default_factory=dict)  # by teacher, of those that have their own
    analyses: AnalysisPrompts | None = None  # the prompts of method.reason_first
    solutions: Solutions | None = None  # as responses, for method sft and data.off_policy.source solution
    recordings: dict[str, Recording] = field(default_factory=dict)  # by teacher, of those whose signals were recorded
    clock: str = ""  # the time that the chat template is told, ISO 8601
    notes: tuple[str, ...] = ()  # what was left out of the data, and why

    @property
    def shared_tokens(self) -> dict[str, np.ndarray]:
        """Of the teachers that send likeliest tokens of their own: see ``renio_pipeline.alignment.shared_tokens``."""
        return {name: other.shared for name, other in self.other_tokenizers.items() if other.shared is not None}

    @property
    def retokenisers(self) -> dict[str, Retokeniser]:
        return {name: other.retokeniser for name, other in self.other_tokenizers.items()}

    def sizes_of(self, teacher: str) -> Prepared | OtherTokenizer:
        """What has the ``vocab_size`` and the ``context`` of a teacher's engine."""
        return self.other_tokenizers.get(teacher, self)


def prepare(config: RunConfig, inspect: Inspect = info.inspect, clock: str | None = None) -> Prepared:
    """Check a configuration against its models and data.

    Args:
        inspect: reads a model by (name, key); for hub names the caller may run it on another node.
        clock: the time that the chat template is told, ISO 8601; None: now.

    Raises:
        ConfigError: names the key, what was given and what is allowed.
    """
    task = make_task(*config.task_recipe)
    training, held_out = problems_of(config, task)
    student = _student(config, inspect)
    if config.sync.backend == "ipc" and config.sync.packed_bytes:
        info.check_packed_bytes(config.student, config.sync.packed_bytes, DTYPE_BYTES[config.generator.dtype])
    recordings = open_recordings(config, student)
    teachers = dict.fromkeys(recordings, student) | {
        name: _teacher(config, name, student, inspect) for name in config.live_teachers
    }
    alike = {name: model for name, model in teachers.items() if name not in config.own_tokenizers}
    vocab_size = min(
        [m.vocab_rows for m in (student, *alike.values())] + [each.manifest.vocab_size for each in recordings.values()]
    )
    check_vocab_size(config, recordings, vocab_size)
    if (k := config.objective.payload.top_k) >= vocab_size:
        raise ConfigError(f"{_top_k_key(config)}: {k} must be below the vocabulary's {vocab_size} entries")
    tokenizer = info.read_tokenizer(config.student, "student")
    choose_template(tokenizer, config.data.chat_template, config.student, "student")
    check_end_token(tokenizer, vocab_size)
    limit = min([student, *alike.values()], key=lambda m: m.context)
    bounds = Bounds(
        context=limit.context,
        model=limit.name,
        max_response_tokens=config.max_response_tokens,
        max_prompt_tokens=config.data.max_prompt_tokens,
        vocab_size=vocab_size,
    )
    stands = TemplateClock(clock)
    check_variables(tokenizer, config.template if alike else config.template.model_copy(update={"teacher": {}}))
    encoder = encoder_of(config, task, tokenizer, stands)
    data = _encoded(config, encoder, training, held_out, bounds, tokenizer)
    others = _other_tokenizers(config, task, encoder, student, teachers, tokenizer, stands, data)
    if config.on_solutions:
        data["notes"] = (*data["notes"], _epochs(config, len(data["rows"])))
    if note := stands.note(tokenizer.chat_template, config.student):
        data["notes"] = (*data["notes"], note)
    if warning := end_warning(tokenizer, end_ids(info.resolve(config.student), tokenizer), config.student):
        data["notes"] = (*data["notes"], warning)
    pairs = {name: _end_tokens(config, name, student, model) for name, model in alike.items()}
    data["notes"] = (*data["notes"], *_teacher_warnings(config, tokenizer, student, alike, pairs))
    token_bytes = {name: payload_token_bytes(config, name, model.hidden_size) for name, model in teachers.items()}
    scored = config.batch_size * config.teachers_of_a_sample
    payload_bytes = scored * config.max_response_tokens * max(token_bytes.values(), default=0)
    _check_payload(config, payload_bytes)
    check_prompts(config, recordings, _drawn(config, data) if recordings else ())
    return Prepared(
        task=task,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        payload_token_bytes=token_bytes,
        end_tokens=pairs,
        payload_bytes=payload_bytes,
        solutions=_solutions(config, tokenizer, vocab_size),
        clock=stands.at,
        other_tokenizers=others,
        recordings=recordings,
        **data,
    )


def _drawn(config: RunConfig, data: Mapping[str, Any]) -> Iterator[Prompt]:
    """The samples that a run draws, as far as they are looked at before it starts. ``data``: fields of ``Prepared``."""
    cursor = Cursor(data["prompt_ids"], data["rows"], config, teacher_ids=data["teacher_ids"], stretch=data["stretch"])
    for _ in range(min(config.steps * config.batch_size, MOST_CHECKED)):
        yield from cursor.take(1)


def encoder_of(config: RunConfig, task: Task, tokenizer: Any, clock: TemplateClock) -> Encoder:
    """What renders the prompts of a run."""
    ways: dict[Audience, str] = {"student": config.data.student_prompt, "evaluation": config.evaluate.prompt}
    return Encoder(
        tokenizer,
        phrasing_of(config, task),
        plain=[audience for audience, way in ways.items() if way == "plain"],
        template=f"student: the chat template of {config.student!r}",
        clock=clock,
    )


def phrasing_of(config: RunConfig, task: Task) -> Phrasing:
    """How a run asks its problems."""
    return Phrasing(
        task,
        config.prompts,
        config.template,
        prompts_of_sources(config.data),
        reasoning=PLACEHOLDER if config.reason_first else "",
    )


def settled(config: RunConfig, prepared: Prepared, point: ResumePoint) -> Prepared:
    """With the order in which the run in ``config.directory`` draws its rows from ``point`` on. Raises as ``settle`` does."""
    found = settle(config, prepared.stretch, point.state.samples_drawn)
    return replace(prepared, stretch=found.stretch, notes=(*prepared.notes, *found.notes))


def _encoded(
    config: RunConfig, encoder: Encoder, training: Problems, held_out: Problems, bounds: Bounds, tokenizer: Any
) -> dict[str, Any]:
    """The fields of ``Prepared`` that derive from the problems."""

    def asked(problems: Problems, audience: Audience, more: int = 0) -> Encoded:
        return Encoded(encoder, problems.rows, audience, more)

    reasons = config.reason_first
    readers: dict[Audience, int] = {"student": 0}  # with the tokens that their prompts need besides
    if config.privileged and len(config.own_tokenizers) < len(config.all_teachers):
        readers["teacher"] = 0
    if reasons is not None:
        # The analysis stands in the teacher's prompt; and the prompt that asks for it has that in the place of a response.
        readers["teacher"] = reasons.max_tokens - len(tokenizer(PLACEHOLDER, add_special_tokens=False)["input_ids"])
        readers["reasoning"] = reasons.max_tokens - bounds.max_response_tokens
    train = [
        fitting(p, [asked(p, who, more) for who, more in readers.items()], bounds, tokenizer)
        for p in training.parts or [training]
    ]
    test = [fitting(p, [asked(p, "evaluation")], bounds, tokenizer) for p in held_out.parts or [held_out]]
    mixed = parts(config.data)
    names = [part.name for part in mixed]
    used, held = (joined(names, [part.problems for part in found]) for found in (train, test))
    prompt_ids, test_ids = asked(used, "student"), asked(held, "evaluation")
    stretches = [
        Stretch(training=of.prints, held_out=held_out_of.prints, asked=config.evaluate.problems)
        for of, held_out_of in zip(train, test, strict=True)
    ]
    shares = [replace(own, name=part.name, share=part.share) for own, part in zip(stretches, mixed, strict=False)]
    of_all = training.notes[sum(len(part.notes) for part in training.parts) :] if training.parts else ()
    longest = max(found.longest for found in (*train, *test))
    return {
        "rows": used.rows, "prompt_ids": prompt_ids,
        "teacher_ids": asked(used, "teacher") if config.privileged else prompt_ids,
        "held_out": list(held.rows), "held_out_ids": [ids for batch in test_ids.batches() for _, ids in batch],
        "analyses": AnalysisPrompts(encoder, tokenizer, longest) if reasons else None,
        "context": longest + bounds.max_response_tokens + 1,
        "notes": (*of_all, *used.notes, *held.notes),
        "stretch": Stretch(parts=tuple(shares)) if shares else stretches[0],
    }  # fmt: skip


def _solutions(config: RunConfig, tokenizer: Any, vocab_size: int) -> Solutions | None:
    if not config.trains_on_solutions:
        return None
    key = "method.type sft" if config.on_solutions else "data.off_policy"
    return Solutions(tokenizer, most=config.max_response_tokens, vocab_size=vocab_size, key=key)


def _epochs(config: RunConfig, rows: int) -> str:
    """How often a run on solutions goes through its problems, which users of other trainers give instead of steps."""
    samples = config.steps * config.batch_size
    return f"{config.steps} steps of {config.batch_size} are {samples / rows:.3g} epochs of {rows} problems"


def _other_tokenizers(
    config: RunConfig, task: Task, encoder: Encoder, student: info.ModelInfo, teachers: Mapping[str, info.ModelInfo],
    tokenizer: Any, clock: TemplateClock, data: dict[str, Any],
) -> dict[str, OtherTokenizer]:  # fmt: skip
    """Of the teachers with a tokenizer of their own, whose prompts and notes go into ``data``, the fields of ``Prepared``."""
    if not config.own_tokenizers:
        return {}
    audience: Audience = "teacher" if config.privileged else "student"
    own = {name: teacher_tokenizer(config, name) for name in config.own_tokenizers}
    encoders = {name: encoder_for(config, name, read, phrasing_of(config, task), clock) for name, read in own.items()}
    of_teachers = TeacherEncoder(encoder, encoders)
    data["teacher_ids"] = Encoded(of_teachers, data["rows"], audience)
    found = {}
    for name, read in own.items():
        rows = [row for row in data["rows"] if of_teachers.teacher(row) == name] if name else data["rows"]
        found[name] = other_tokenizer(
            config, name, read, tokenizer, student, teachers[name], Encoded(encoders[name], rows, audience)
        )
        data["notes"] = (*data["notes"], *found[name].notes)
    return found


def _student(config: RunConfig, inspect: Inspect) -> info.ModelInfo:
    """The student's sizes. Raises ConfigError if it cannot be trained."""
    student = inspect(config.student, "student")
    if student.quantised:
        raise ConfigError(
            f"student: {config.student!r} is quantised ({student.quantised}), and quantised weights cannot be trained; give "
            "the model that it was made of (a teacher may be quantised)"
        )
    if config.trainer.lora is not None:
        info.check_lora_targets(config.student, config.trainer.lora.targets)
    return student


def _teacher(config: RunConfig, name: str, student: info.ModelInfo, inspect: Inspect) -> info.ModelInfo:
    """A teacher's sizes. Raises ConfigError if its tokenizer is not the student's."""
    key, model = config.teacher_key(name, "model"), config.teacher_model(name)
    if config.all_teachers[name].type == "http" and info.is_local(model):
        inspect = partial(info.inspect, weights=False)  # the servers have them
    teacher = student if model == config.student else inspect(model, key)
    if (adapter := config.all_teachers[name].adapter) is not None:
        read_adapter(adapter, config.teacher_key(name, "adapter"))
    if name not in config.own_tokenizers:
        info.check_tokenizers(student, teacher, key)
        check_ends(student, teacher, config.sampling.stop_token_ids, _end_tokens(config, name, student, teacher), key)
    if config.objective.payload == HIDDEN and info.is_local(model) and is_pickled(Path(info.resolve(model))):
        raise ConfigError(
            f"{key}: {model!r} has its weights in pytorch_model.bin, and {config.objective.label} reads its output head from "
            "safetensors; save it again with transformers' save_pretrained"
        )
    if config.objective.payload == HIDDEN and teacher.unknown_scale:
        raise ConfigError(
            f"{key}: {model!r} scales its logits by {teacher.unknown_scale} in a way that is not known here, so they cannot be "
            "made of its hidden states; choose another teacher, or objective.type=top_k_forward_kl"
        )
    return teacher


def _end_tokens(config: RunConfig, name: str, student: info.ModelInfo, teacher: info.ModelInfo) -> EndTokens:
    section, key = config.all_teachers[name], config.teacher_key(name, "end_tokens")
    return end_pairs(section.end_tokens, student, teacher, config.sampling.stop_token_ids, key)


def _teacher_warnings(
    config: RunConfig,
    tokenizer: Any,
    student: info.ModelInfo,
    teachers: Mapping[str, info.ModelInfo],
    pairs: Mapping[str, EndTokens],
) -> Iterator[str]:
    """Of each teacher whose chat template is another than the student's, and ends answers where no response ends."""
    own = {*student.ends, *config.sampling.stop_token_ids}
    for name, teacher in teachers.items():
        read = {dict(pairs[name]).get(i, i) for i in own}
        if teacher.chat_template and teacher.chat_template != student.chat_template:
            key = config.teacher_key(name)
            if warning := teacher_end_warning(tokenizer, teacher.chat_template, read, teacher.name, key):
                yield warning


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
    if info.is_cached(config.student):
        student = _student(config, inspect)
        open_recordings(config, student)
        for name in config.live_teachers:
            if info.is_cached(config.teacher_model(name)):
                _teacher(config, name, student, inspect)
    needs_all = "prompt lengths, vocabulary and payload, which need all of them"
    return notes, [*unseen, *_without_weights(config), needs_all, "the cluster"]


def not_here(config: RunConfig) -> list[str]:
    """Which models and files of a configuration this machine does not have, as ``key: name``; no network is asked."""
    missing = [f"{key}: {name}" for key, name in _models(config).items() if not info.is_cached(name)]
    sections: dict[str, ProblemSource] = {part.key: part.section for part in parts(config.data)}
    sections = sections or {"data": config.data}
    files = {f"{key}.{name}": getattr(of, name) for key, of in sections.items() for name in ("path", "held_out_path")}
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


def payload_token_bytes(config: RunConfig, teacher: str, teacher_hidden_size: int) -> int:
    """Bytes that a teacher sends of a response token, at most. ``teacher_hidden_size``: width of its hidden states."""
    one = config.objective.payload.token_bytes(teacher_hidden_size, DTYPE_BYTES[config.all_teachers[teacher].dtype])
    return one * (ROOM if teacher in config.own_tokenizers else 1)


def _top_k_key(config: RunConfig) -> str:
    """Where the user says how many of its likeliest tokens the teacher sends."""
    return "objective.k" if "k" in type(config.objective).model_fields else "objective: top_k of its payload"


def _check_payload(config: RunConfig, payload_bytes: int) -> None:
    if payload_bytes > config.payload.max_bytes:
        factors = "batch_size x max_response_tokens x bytes per token" + (" x teachers of combine" if config.combine else "")
        raise ConfigError(
            f"payload.max_bytes: a step's {config.objective.payload.kind} may take {payload_bytes} bytes ({factors}), and "
            f"payload.max_bytes is {config.payload.max_bytes}; raise it, or lower "
            "batch_size or objective.k"
        )


def check_run_dir(config: RunConfig, *, resume: bool = False) -> None:
    """Raises ConfigError if the run directory cannot be made, or belongs to a run already and this one does not ``resume``."""
    check_writable(config)
    folder = config.directory
    free = (lease_files.FOLDER, PROBES)
    if folder.exists() and not resume and not all(entry.name.startswith(free) for entry in folder.iterdir()):
        raise ConfigError(
            f"{config.directory_key}: {folder} is another run's directory (it is not empty); choose another run_dir or name, "
            "or resume that run with --resume"
        )


def check_writable(config: RunConfig) -> None:
    """Raises ConfigError if the run directory is no folder that this user can write to, and cannot become one."""
    folder = config.directory
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{config.directory_key}: {folder} cannot be made: {parent} is not a folder that this user can write to"
        )
