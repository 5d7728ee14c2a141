"""Measures a teacher of the study: whether it notices slips, how often it mends errors, and where the loss is that it gives."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Grader, Judged
from renio_pipeline.in_process import in_process_stages
from renio_pipeline.in_process.trainers import InProcessTrainers
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared
from renio_pipeline.probe.responses import Response
from renio_pipeline.probe.results import Recovery
from renio_pipeline.probe.run import LONGER, Size, examine, respond, score
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.study.character import Continuing, shares, terms_of
from renio_pipeline.study.lessons import slipped_step
from renio_pipeline.study.marks import REPAIR
from renio_pipeline.study.results import Record
from renio_pipeline.tasks.arithmetic import work

SIZE = Size(responses=512, prefixes=128, continuations=2)


async def measure_teacher(config: RunConfig, prepared: Prepared, grader: Grader) -> Record:
    """Measure the teacher of ``config`` on first steps that slipped or did not, and on its student's own responses."""
    began = time.process_time()
    teacher = Continuing.of(config, prepared, grader, config.teacher_model())
    right = [work(row.problem).split(";")[0] for row in prepared.held_out]
    wrong = [slipped_step(row.problem, random.Random(i)) for i, row in enumerate(prepared.held_out)]
    after_slip, after_right = [await teacher.after([f"{step};" for step in steps]) for steps in (wrong, right)]
    return {
        "alone": shares(await teacher.after([""] * len(right)), terms=terms_of(config)),
        "after_slip": shares(after_slip, terms=terms_of(config)),
        "marked_at_once": {"slips": _marked(after_slip, wrong), "right steps": _marked(after_right, right)},
        **await _of_own_errors(config, prepared, grader),
        "core_seconds": round(time.process_time() - began, 2),
    }


def _marked(judged: Sequence[Judged], steps: Sequence[str]) -> float:
    """The share of the steps that are marked before anything else follows."""
    return float(np.mean([j.text.startswith(step + REPAIR) for j, step in zip(judged, steps, strict=True)]))


async def _of_own_errors(config: RunConfig, prepared: Prepared, grader: Grader) -> dict[str, Any]:
    """What ``renio probe`` finds, in this process: the teacher goes on from before and after first pivotal tokens."""
    stages = in_process_stages(config, prepared)
    assert stages.teachers is not None, "its configurations have a teacher"
    assert isinstance(stages.trainers, InProcessTrainers)
    prompts = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids).take(SIZE.responses)
    judged = await respond(stages.generators, prompts, grader.judge, config)
    budget = PayloadBudget(config.payload.max_bytes, config.batch_size, 0)
    responses = await score(stages.teachers, budget, judged, config, stages.trainers.forward)
    most = info.inspect(config.teacher_model(), "teacher.model").context
    context = min(most, prepared.context + (LONGER - 1) * config.max_response_tokens)
    (entry,) = (await examine(stages.teachers, grader.judge, responses, config, context=context, size=SIZE)).entries
    found = entry.findings
    if (own := _recorded(found.recovery)) is None:
        raise ConfigError(
            f"student: none of {found.wrong} wrong responses of {config.student} has a token that is pivotal to its teacher, "
            f"{config.teacher_model()}, so that there is nothing to go on from; leave this teacher out of experiments of kind "
            "teachers"
        )
    return {
        "responses": {"right": found.right, "wrong": found.wrong},
        "own_errors": own,
        "loss": loss_shares(responses),
        "advice": entry.advice.overrides,
    }


def loss_shares(responses: Sequence[Response]) -> dict[str, float]:
    """Where the loss lies with uniform weights, each token counting one T-th of its response: the share of all of it that is on
    right responses, and the share that comes after first pivotal tokens.
    """
    sizes = [np.abs(r.forward.losses) / len(r.forward.losses) for r in responses if r.forward is not None]
    total = sum(float(size.sum()) for size in sizes)
    parts = {
        "right": [float(size.sum()) for r, size in zip(responses, sizes, strict=True) if r.verdict == "correct"],
        "after_pivotal": [float(size[r.after].sum()) for r, size in zip(responses, sizes, strict=True)],
    }
    return {name: sum(part) / total for name, part in parts.items()}


def _recorded(recovery: Recovery | None) -> dict[str, Any] | None:
    """Shares of correct answers with their intervals; None where the teacher went on from nothing."""
    if recovery is None or recovery.before is None or recovery.after is None:
        return None
    sides = {"before": recovery.before, "after": recovery.after}
    return {"prefixes": recovery.prefixes} | {name: [e.value, e.low, e.high] for name, e in sides.items()}
