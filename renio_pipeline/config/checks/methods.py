"""What a method, its objective, weighting and rewards need of each other."""

from __future__ import annotations

from renio_pipeline.config import schema
from renio_pipeline.config.mixture import parts
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.sections import HIDDEN, TeacherPayload
from renio_pipeline.config.teacher_writing import check_teachers_write


def check_variants(c: RunConfig) -> None:
    """What the chosen method, reward, weighting and objective check themselves."""
    with c.objective.guarded("payload", refuses=True):
        payload: object = c.objective.payload
    if not isinstance(payload, TeacherPayload):
        raise ValueError(
            f"objective: the payload of {c.objective.label} must be SAMPLED, top_k(k) or HIDDEN of renio_pipeline.objectives, "
            f"got {payload!r}"
        )
    with c.weighting.guarded("pivotal", refuses=True):
        pivotal: object = c.weighting.pivotal
    if not isinstance(pivotal, schema.Pivotal | None):
        raise ValueError(f"weighting: pivotal of {c.weighting.label} must be a Pivotal or None, got {pivotal!r}")
    c.method.check(c)
    c.reward.check(c)
    for section in (c.weighting, c.objective):
        with section.guarded("check", refuses=True):
            section.check(c)
    c.pivotal.check("diagnostics")


def check_method(c: RunConfig) -> None:
    """The method and its teachers."""
    if isinstance(c.method, schema.Grpo | schema.Sft):
        return  # its own check says everything
    if not c.all_teachers:
        raise ValueError(
            f"objective {c.objective.label} asks for no teacher, and method {c.method.type} learns from one; choose another "
            "objective.type, or set method.type=grpo"
        )
    if isinstance(c.method, schema.Opd):
        for name, teacher in c.all_teachers.items():
            if teacher.model is None and teacher.type != "recorded":
                raise ValueError(f"{c.teacher_key(name, 'model')}: required, unless method.type is opsd")
        return
    if c.teachers:
        raise ValueError("teachers: in opsd the teacher is the student itself, and there is one; set method.type=opd")
    if c.teacher.model not in (None, c.student):
        raise ValueError(
            f"teacher.model ({c.teacher.model}) differs from student ({c.student}), but in opsd the teacher is the "
            "student itself, whose weights it may take over; leave teacher.model out, or set method.type=opd"
        )
    for name, teacher in c.all_teachers.items():
        if teacher.end_tokens:
            raise ValueError(
                f"{c.teacher_key(name, 'end_tokens')}: in opsd the teacher is the student itself, and ends as it does; leave "
                "it out"
            )
        if c.follow and teacher.adapter is not None:
            raise ValueError(
                f"{c.teacher_key(name, 'adapter')}: method.teacher {c.follow.teacher} gets the student's weights, to which no "
                "adapter belongs; leave it out"
            )
    if c.follow and c.objective.payload == HIDDEN and c.teacher.type != "torch":
        raise ValueError(
            f"method.teacher {c.follow.teacher} with objective.type {c.objective.type} needs teacher.type=torch, which takes "
            f"new weights and sends hidden states; {c.teacher.type} does only one of them at a time"
        )


def check_reason_first(c: RunConfig) -> None:
    """The analysis that a teacher writes, and the prompts that show it."""
    reasons = c.reason_first
    sections = {"prompts": c.prompts}
    sections |= {f"{part.key}.prompts": part.section.prompts for part in parts(c.data) if part.section.prompts is not None}
    for key, section in sections.items():
        shows = section.teacher is not None and "{reasoning}" in section.teacher
        if shows and reasons is None:
            raise ValueError(f"{key}.teacher: {{reasoning}} is what method.reason_first writes; set that, or leave it out")
        if reasons is not None and section.teacher is not None and not shows:
            raise ValueError(f"{key}.teacher: has no {{reasoning}}, which method.reason_first writes for it; add that")
    if reasons is None:
        return
    if not c.privileged:
        raise ValueError(
            "method.reason_first: the teacher analyses the reference solution, which it is not shown; set "
            "method.privileged=true"
        )
    if reasons.temperature / c.temperature > 2:  # vLLM's bound, see ``check_batch``
        raise ValueError(
            f"method.reason_first.temperature ({reasons.temperature}) may be at most twice temperature ({c.temperature}); "
            "lower it"
        )
    check_teachers_write(c, "method.reason_first")
