"""The sizes of student and teachers, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.data.chat_templates import teacher_end_warning
from renio_pipeline.models import info
from renio_pipeline.models.adapters import read_adapter
from renio_pipeline.models.end_tokens import check_ends, end_pairs
from renio_pipeline.models.folder import is_pickled
from renio_pipeline.types import EndTokens

Inspect = Callable[[str, str], info.ModelInfo]  # reads a model by (name, key)


def student_of(config: RunConfig, inspect: Inspect) -> info.ModelInfo:
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


def teacher_of(config: RunConfig, name: str, student: info.ModelInfo, inspect: Inspect) -> info.ModelInfo:
    """A teacher's sizes. Raises ConfigError if its tokenizer is not the student's."""
    key, model = config.teacher_key(name, "model"), config.teacher_model(name)
    if config.all_teachers[name].type == "http" and info.is_local(model):
        inspect = partial(info.inspect, weights=False)  # the servers have them
    teacher = student if model == config.student else inspect(model, key)
    if (adapter := config.all_teachers[name].adapter) is not None:
        read_adapter(adapter, config.teacher_key(name, "adapter"))
    if name not in config.own_tokenizers:
        info.check_tokenizers(student, teacher, key)
        check_ends(student, teacher, config.sampling.stop_token_ids, end_tokens_of(config, name, student, teacher), key)
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


def end_tokens_of(config: RunConfig, name: str, student: info.ModelInfo, teacher: info.ModelInfo) -> EndTokens:
    """At what tokens student's and teacher's answers end. Raises ConfigError where ``end_tokens`` names none of theirs."""
    section, key = config.all_teachers[name], config.teacher_key(name, "end_tokens")
    given = {} if section.type == "recorded" else section.end_tokens  # a recording is in the student's tokens
    return end_pairs(given, student, teacher, config.sampling.stop_token_ids, key)


def teacher_warnings(
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
