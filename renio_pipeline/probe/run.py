"""A probe, stage by stage. Nothing is trained.

respond   the student writes, and its responses are judged
score     the teachers score them, and the trainer's forward pass says what the loss is, batch by batch
examine   each teacher answers the problems itself, and goes on from the chosen responses; findings and advice
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.grading.grader import Judge, Judged, judge_all
from renio_pipeline.probe.advice import Setting, advise
from renio_pipeline.probe.continuations import AFTER, BEFORE, Asking, Begun, go_on
from renio_pipeline.probe.numbers import Continued, findings
from renio_pipeline.probe.responses import Forward, Response, by_teacher
from renio_pipeline.probe.results import ALL, Probed
from renio_pipeline.probe.selection import around_first, choose
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Generators, Teachers
from renio_pipeline.tasks import Task
from renio_pipeline.tasks.mixed import error_kind
from renio_pipeline.types import Prompt, Rollout, ScoredRollout

LONGER = 2  # times the run's longest response: a teacher that mends a response needs more tokens than one that wrote it right

ForwardPass = Callable[[Sequence[ScoredRollout]], Awaitable[dict[int, Forward]]]  # by sample id


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much a probe asks for."""

    responses: int = 256  # of the student
    prefixes: int = 40  # responses of each group from which a teacher goes on
    continuations: int = 4  # from each point of each of them


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What a probe found, and the texts that it rests on."""

    entries: list[Probed]
    records: list[dict[str, Any]]  # one for each beginning that a teacher continued


async def respond(generators: Generators, prompts: Sequence[Prompt], judge: Judge, config: RunConfig) -> list[Judged]:
    """The student's responses as a step would sample them, in the order of sample ids, without quarantined ones."""
    judged = await judge_all(generators.generate(prompts, config.sampling.temperature), judge)
    return sorted(judged, key=lambda j: j.rollout.sample_id)


async def score(
    teachers: Teachers,
    budget: PayloadBudget,
    judged: Sequence[Judged],
    config: RunConfig,
    forward: ForwardPass | None = None,
    *,
    task: Task | None = None,
) -> list[Response]:
    """Score responses, as many at a time as a step has, so that their payloads fit where a step's do.

    Args:
        forward: the trainer's forward pass over scored responses; None: it is left out.
        task: tells kinds of errors apart, if it can; None: they are not told apart.
    """
    by_id = {j.rollout.sample_id: j for j in judged}
    found: list[Response] = []
    for step, start in enumerate(range(0, len(judged), config.batch_size), 1):
        budget.open(step)
        scored = await teachers.score(_stream([j.rollout for j in judged[start : start + config.batch_size]]), step)
        computed = await forward(scored) if forward is not None else {}
        budget.close(step)
        found += [
            Response(
                prompt=s.rollout.prompt,
                token_ids=s.rollout.token_ids,
                stop_reason=s.rollout.stop_reason,
                verdict=by_id[s.rollout.sample_id].verdict,
                generator=s.rollout.logprobs,
                teacher=s.teacher_logprobs,
                pivotal=config.pivotal,
                forward=computed.get(s.rollout.sample_id),
                by_trainer=config.student_logprobs == "trainer",
                error=_error(task, by_id[s.rollout.sample_id]),
            )
            for s in scored
        ]
    return found


async def examine(
    teachers: Teachers, judge: Judge, responses: Sequence[Response], config: RunConfig, *, context: int, size: Size
) -> Examined:
    """Have each teacher answer and go on, and say what all of that speaks for.

    Args:
        context: tokens that the teachers' engines hold.
    """
    names, seed = list(config.all_teachers), config.seed
    asking = Asking(
        each=size.continuations,
        temperature=config.temperature,  # what a teacher teaches is its distribution at the distillation temperature
        max_tokens=LONGER * config.max_response_tokens,
        context=context,
        seed=seed,
        stop_token_ids=tuple(config.sampling.stop_token_ids),
    )
    of = by_teacher(responses, names)
    asked = await asyncio.gather(*(_asked(teachers, judge, of[n], asking, n, size.prefixes) for n in names))
    settings = Setting.of(config)

    def entry(label: str, own: Sequence[Response], alone: Mapping[str, bool], continued: Sequence[Continued]) -> Probed:
        found = findings(label, own, alone, continued, each=size.continuations, seed=seed)
        return Probed(findings=found, advice=advise(found, settings))

    entries = [entry(n or config.teacher_model(n), of[n], a.alone, a.continued) for n, a in zip(names, asked, strict=True)]
    if len(names) > 1:
        together = {row: right for a in asked for row, right in a.alone.items()}
        entries.append(entry(ALL, responses, together, [c for a in asked for c in a.continued]))
    return Examined(entries=entries, records=[record for a in asked for record in a.records])


@dataclass(frozen=True, kw_only=True)
class _Asked:
    alone: dict[str, bool]  # whether the teacher's own answer is correct, by row
    continued: list[Continued]
    records: list[dict[str, Any]]


async def _asked(
    teachers: Teachers, judge: Judge, responses: Sequence[Response], asking: Asking, name: str, prefixes: int
) -> _Asked:
    graded = [r for r in responses if r.verdict is not None]
    rows = {r.prompt.row.id: r for r in graded}
    whole = [Begun(prompt=r.prompt, ids=np.empty(0, np.int32)) for r in rows.values()]
    chosen = [(group, r) for group, own in choose(graded, prefixes, seed=asking.seed).items() for r in own]
    begun = [b for _, r in chosen for b in around_first(r)]
    own = await go_on(teachers, judge, whole, replace(asking, each=1), name)
    found = await go_on(teachers, judge, begun, replace(asking, seed=asking.seed + 1), name)
    continued, records = [], []
    for place, (group, r) in enumerate(chosen):
        sides = {BEFORE: found[2 * place], AFTER: found[2 * place + 1]}
        correct = {point: [j.verdict == "correct" for j in judged] for point, judged in sides.items()}
        continued.append(Continued(group=group, response=r, correct=correct))
        records += [_record(name, group, r, point, judged) for point, judged in sides.items()]
    alone = {row: each[0].verdict == "correct" for row, each in zip(rows, own, strict=True)}
    return _Asked(alone=alone, continued=continued, records=records)


def _error(task: Task | None, judged: Judged) -> str | None:
    if task is None or judged.verdict != "incorrect":
        return None
    return error_kind(task, judged.rollout.prompt.row, judged.text)


def _record(teacher: str, group: str, response: Response, point: str, judged: Sequence[Judged]) -> dict[str, Any]:
    return {
        "teacher": teacher,
        "group": group,
        "row": response.prompt.row.id,
        "sample_id": response.prompt.sample_id,
        "verdict": response.verdict,
        "error": response.error,
        "raw_weight": response.raw,
        "first_pivotal": response.first,
        "from": point,
        "continuations": [{"text": j.text, "verdict": j.verdict} for j in judged],
    }


async def _stream(rollouts: Sequence[Rollout]) -> AsyncIterator[Rollout]:
    for rollout in rollouts:
        yield rollout
