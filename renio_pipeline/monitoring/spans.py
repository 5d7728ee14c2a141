"""Which worker did what during a step, as a trace shows it.

Times are in seconds of the driver's ``time.perf_counter``. A sample is at a worker from when the driver sends it until the
driver has the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from renio_pipeline.grading.grader import by_student
from renio_pipeline.monitoring.replicas import Place, places_of_teachers
from renio_pipeline.stages.outcomes import SkippedStep, StepResult
from renio_pipeline.types import NEVER, OffPolicySource, Times

WEIGHTING: Place = ("weighting", "0")


@dataclass(frozen=True, slots=True)
class Span:
    place: Place
    name: str
    start: float
    end: float
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a sample that was trained on: the workers that had it, each with a moment at which it was there."""

    sample_id: int
    off_policy: OffPolicySource | None  # it comes from no generator
    stops: tuple[tuple[Place, float], ...]


REMEMBERED = 1000  # spans kept per row: those of a later step may have to fit between them


class Rows:
    """Lays out steps on rows; each row shows one span at a time."""

    def __init__(self) -> None:
        self._taken: dict[Place, list[Times]] = {}  # in order

    def spans(self, result: StepResult | SkippedStep) -> Iterator[Span]:
        written: dict[Place, list[Times]] = {}
        for judged in by_student(result.judged.values()):
            written.setdefault(("generator", judged.rollout.replica), []).append(judged.rollout.times)
        yield from self._pools(written, "generate")
        if isinstance(result, SkippedStep):
            return
        scored: dict[Place, list[Times]] = {}
        for s in result.scored:
            if s.scores is not None:
                for place in places_of_teachers(s.scores.replica):
                    scored.setdefault(place, []).append(s.scores.times)
        yield from self._pools(scored, "score")
        shares = result.report.shares
        (began, ended), sync = result.spans["train"], result.spans["sync"]
        if result.weighed is not None:
            yield Span(WEIGHTING, "weigh", *result.spans["weigh"], len(result.scored))
        for rank, seconds in enumerate(result.report.busy_seconds):
            place = ("trainer", str(rank))
            yield Span(place, "train", began, min(began + seconds, ended), len(shares[rank]) if shares else 0)
            yield Span(place, "sync", *sync)

    def _pools(self, times: dict[Place, list[Times]], name: str) -> Iterator[Span]:
        for place, of_samples in times.items():
            known = [t for t in of_samples if t != NEVER]
            taken = self._taken.get(place, [])
            pieces = [piece for span in union(known) for piece in outside(span, taken)]
            self._taken[place] = sorted(taken + pieces)[-REMEMBERED:]
            for start, end in pieces:
                yield Span(place, name, start, end, sum(start < came <= end for _, came in known))


def union(times: Iterable[Times]) -> list[Times]:
    """Merge times that touch or overlap, in order.

    >>> union([(4, 5), (1, 2), (2, 3)])
    [(1, 3), (4, 5)]
    """
    found: list[Times] = []
    for start, end in sorted(times):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def outside(span: Times, taken: Iterable[Times]) -> Iterator[Times]:
    """The parts of a span that are not covered by ``taken``, which is in order.

    >>> list(outside((1, 9), [(0, 2), (4, 5)]))
    [(2, 4), (5, 9)]
    """
    start, end = span
    for other_start, other_end in taken:
        if other_end <= start or other_start >= end:
            continue
        if other_start > start:
            yield start, other_start
        start = max(start, other_end)
    if start < end:
        yield start, end


def ways(result: StepResult) -> Iterator[Way]:
    """The way of each sample: generator, teacher, weighting, and the rank that trained on it; without those that a run has
    not."""
    rank_of = {i: str(rank) for rank, share in enumerate(result.report.shares) for i in share}
    for s in result.scored:
        rollout, scores, sample_id = s.rollout, s.scores, s.rollout.sample_id
        foreign = rollout.off_policy
        known = [*([] if scores is None else [scores.times]), *([] if foreign else [rollout.times])]
        if NEVER in known or sample_id not in rank_of:
            continue
        stops: list[tuple[Place, float]] = [] if foreign else [(("generator", rollout.replica), rollout.times[1])]
        if scores is not None:
            at = scores.times[1] if foreign else scores.times[0]
            stops += [(place, at) for place in places_of_teachers(scores.replica)]
        if result.weighed is not None:
            stops.append((WEIGHTING, result.spans["weigh"][0]))
        stops.append((("trainer", rank_of[sample_id]), result.spans["train"][0]))
        yield Way(sample_id, foreign, tuple(stops))
