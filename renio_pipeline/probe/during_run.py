"""A small probe of one step's responses, while the run goes on: how often the teacher recovers from the wrong ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from renio_pipeline.grading.grader import Judge, Judged
from renio_pipeline.probe.continuations import Asking, Begun, go_on
from renio_pipeline.probe.responses import Response
from renio_pipeline.probe.selection import around_first
from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.weightings.recovery import Evidence


def affordable(responses: Sequence[Response], asking: Asking, *, most: int, tokens: float) -> list[Response]:
    """Wrong responses with a pivotal token, from which the teacher goes on twice each, just before that token and just after.

    They are drawn by seed and sample id alone, whatever their order, until the next one could exceed ``tokens``.

    Args:
        most: how many responses, at most.
        tokens: the most that all continuations together may have.
    """
    candidates = [r for r in responses if r.wrong and r.first is not None]
    drawn = sorted(candidates, key=lambda r: (sample_seed(asking.seed, r.prompt.sample_id), r.prompt.sample_id))[:most]
    costs = np.cumsum([sum(asking.room(b) for b in around_first(r)) for r in drawn])
    return drawn[: int(np.searchsorted(costs, tokens, side="right"))]


async def recovery_of(
    teachers: Teachers, judge: Judge, chosen: Sequence[Response], asking: Asking, *, scored: int, routed: bool
) -> Evidence:
    """Have the teacher go on, once from each point.

    A response counts where the continuation from before the first pivotal token is correct: elsewhere the teacher fails anyway,
    and nothing is known about that token.

    Args:
        scored: tokens that the teacher scored in the step.
        routed: there are several teachers, and each row names its own.
    """
    by_teacher: dict[str, list[Response]] = {}
    for response in chosen:
        by_teacher.setdefault((response.prompt.row.teacher or "") if routed else "", []).append(response)
    parts = [(name, [b for r in own for b in around_first(r)]) for name, own in by_teacher.items()]
    seeds = [sample_seed(asking.seed, -1 - place) for place in range(len(parts))]
    found = await asyncio.gather(
        *(go_on(teachers, judge, begun, replace(asking, seed=s), name) for (name, begun), s in zip(parts, seeds, strict=True))
    )
    begun = [b for _, own in parts for b in own]
    judged = [one for part in found for (one,) in part]
    return _counted(begun, judged, len(chosen), scored)


def _counted(begun: Sequence[Begun], judged: Sequence[Judged], prefixes: int, scored: int) -> Evidence:
    correct = np.array([j.verdict == "correct" for j in judged], bool).reshape(-1, 2)  # from before, from after
    written = sum(len(j.rollout.token_ids) - len(b.ids) for b, j in zip(begun, judged, strict=True))
    return Evidence(
        trials=int(correct[:, 0].sum()),
        successes=int(correct.all(axis=1).sum()),
        prefixes=prefixes,
        share=written / scored,
    )
