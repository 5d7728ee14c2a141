"""Does what an arm gains follow from something measured of its teacher? A line over teachers, and what it says of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from renio_pipeline.study.findings import POINTS, Comparison, Group, Pair, accuracy, measured
from renio_pipeline.study.plan import Claim
from renio_pipeline.study.results import Record
from renio_pipeline.study.statistics import Estimate, Line, estimate, line

PREDICTORS: dict[str, Callable[[Record], float]] = {  # in percent
    "recovery after a slip": lambda r: POINTS * float(r["after_slip"]["correct"]),
    "recovery after the student's own first pivotal token": lambda r: POINTS * float(r["own_errors"]["after"][0]),
    "share of the loss on right responses": lambda r: POINTS * float(r["loss"]["right"]),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """A teacher's difference, and what the line over all other teachers says of it, in points."""

    where: str
    at: float  # the measure, in percent
    found: Estimate
    expected: float | None  # None: the others have no line

    @property
    def agrees(self) -> bool:
        """Whether the sign was foretold."""
        return self.expected is not None and (self.expected > 0) == (self.found.mean > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """The differences of a claim on one measure of the teachers."""

    predictor: str  # of PREDICTORS
    claim: Claim
    over_teachers: Line  # through the mean difference of each teacher
    over_seeds: Estimate | None  # the slopes of each seed's own line through the same teachers; None: no seed has all teachers
    teachers: list[Foretold]


def regressions(
    claim: Claim, groups: Sequence[Group], compared: Sequence[Comparison], teachers: Mapping[Pair, Record]
) -> Iterator[Regression]:
    """One regression for each measure of ``PREDICTORS``, over the teachers that were measured and have a difference."""
    found = {c.where: c.difference for c in compared if c.claim == claim}
    known = [g for g in groups if g.pair in teachers and g.where in found]
    for name, measure in PREDICTORS.items():
        at = {g.where: measure(teachers[g.pair]) for g in known}
        through = line([(at[w], found[w].mean) for w in at])
        if through is None:
            continue
        yield Regression(
            predictor=name,
            claim=claim,
            over_teachers=through,
            over_seeds=_over_seeds(claim, known, at),
            teachers=[_foretold(w, at, found) for w in at],
        )


def _foretold(where: str, at: Mapping[str, float], found: Mapping[str, Estimate]) -> Foretold:
    others = line([(at[w], found[w].mean) for w in at if w != where])
    expected = None if others is None else others.at(at[where])
    return Foretold(where=where, at=at[where], found=found[where], expected=expected)


def _over_seeds(claim: Claim, groups: Sequence[Group], at: Mapping[str, float]) -> Estimate | None:
    """The mean slope of the lines that each seed has by itself, as seeds are paired over teachers too."""
    values = {g.where: [measured(g.arms[name], accuracy) for name in (claim.better, claim.than)] for g in groups}
    seeds = set.intersection(*({*one} & {*other} for one, other in values.values()))
    lines = [line([(at[w], one[seed] - other[seed]) for w, (one, other) in values.items()]) for seed in sorted(seeds)]
    slopes = [found.slope.mean for found in lines if found is not None]
    return estimate(slopes) if slopes else None
