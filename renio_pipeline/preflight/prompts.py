"""The prompts of a run, by the student's tokenizer and by those of teachers that have their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import parts, prompts_of_sources
from renio_pipeline.config.schema import Audience
from renio_pipeline.data.analyses import PLACEHOLDER, AnalysisPrompts
from renio_pipeline.data.other_tokenizers import (
    OtherTokenizer,
    TeacherEncoder,
    encoder_for,
    other_tokenizer,
    teacher_tokenizer,
)
from renio_pipeline.data.problems import Problems, joined
from renio_pipeline.data.prompt_lengths import Bounds, fitting
from renio_pipeline.data.prompts import Encoded, Encoder
from renio_pipeline.data.template_clock import TemplateClock, reads_clock
from renio_pipeline.models import info
from renio_pipeline.recordings.manifest import FILE
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.run_dir.data_record import Stretch
from renio_pipeline.tasks import Task
from renio_pipeline.tasks.phrasing import Phrasing


def recorded_clock(config: RunConfig, recordings: Mapping[str, Recording], template: str) -> str | None:
    """The time that the student's chat template was told when the responses were recorded; None: it reads none.

    Raises:
        ConfigError: the template was told different times, so that no run can ask what all of them were asked.
    """
    if not reads_clock(template):
        return None
    known = {config.teacher_key(n, "path"): each.manifest.clock for n, each in recordings.items() if each.manifest.clock}
    (first, clock), *others = known.items() or [("", None)]
    for key, other in others:
        if other != clock:
            raise ConfigError(
                f"{key}: the student's chat template reads the time, which was {other} for this recording and {clock} for that "
                f"of {first} (clock in {FILE}); record both with one renio score, or one of them again with --reuse=the other"
            )
    return clock


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


def encoded(
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


def other_tokenizers(
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
