"""The raw results arranged by experiment: arms at the levels of their factors, and their comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from renio_pipeline.metrics.weight_scores import SCORES, WEIGHT
from renio_pipeline.study.plan import Claim, Experiment, cells
from renio_pipeline.study.results import Record, Results
from renio_pipeline.study.statistics import Estimate, estimate, paired

By = Mapping[int, Record]  # by seed
Measure = Callable[[Record], float | None]  # None: undefined for the record
Outcome = Literal["held", "reversed", "better", "worse", "no claim"]
Pair = tuple[str, str, bool]  # who learns from whom: student, teacher, and whether the teacher sees the solution
POINTS = 100.0  # percentage points per share


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The results at one level of each factor."""

    where: str  # the levels; "" if there are no factors
    arms: dict[str, dict[int, Record]]
    pair: Pair = ("", "", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A claim, at one level of each factor."""

    claim: Claim
    where: str
    difference: Estimate  # in ``unit``
    runs: tuple[str, str]  # the keys of both sides' configurations, and so of their runs, which experiments may share
    unit: Literal["points", "AUROC"] = "points"

    @property
    def outcome(self) -> Outcome:
        reading = self.difference.reading
        if self.claim.source == "paper" and reading != "no claim":
            return "held" if reading == "better" else "reversed"
        return reading


def groups(path: Path, experiment: Experiment, results: Results, seeds: int | None = None) -> list[Group]:
    """The available results of an experiment."""
    found: dict[str, Group] = {}
    for cell in cells({path: experiment}, seeds):
        where = ", ".join(cell.factors.values())
        teacher = cell.config.teacher_model() if cell.config.all_teachers else ""
        pair = (cell.config.student, teacher, cell.config.privileged)
        group = found.setdefault(where, Group(where=where, arms={name: {} for name in experiment.arms}, pair=pair))
        if (record := results.of(cell)) is not None:
            group.arms[cell.arm][cell.seed] = record
    return list(found.values())


def accuracy(record: Record) -> float:
    """Held-out accuracy after training, in percent."""
    return POINTS * float(record["after"]["correct"])


def gain(record: Record) -> float:
    """The gain in held-out accuracy by training, in percentage points."""
    return accuracy(record) - POINTS * float(record["before"]["correct"])


def area(score: str, prefix: str = "whole") -> Measure:
    """The AUROC of a score, as a measure of a record."""

    def measure(record: Record) -> float | None:
        found = record["auroc"][prefix][score]
        return None if found is None else float(found)

    return measure


def measured(by: By, measure: Measure) -> dict[int, float]:
    """The values that are defined, by seed."""
    return {seed: value for seed, record in by.items() if (value := measure(record)) is not None}


def mean(by: By, measure: Measure) -> Estimate | None:
    """The mean over seeds; None without values."""
    values = list(measured(by, measure).values())
    return estimate(values) if values else None


def comparisons(experiment: Experiment, found: list[Group]) -> Iterator[Comparison]:
    """Every claim of an experiment at all levels where both arms share a seed."""
    for group in found:
        if experiment.kind == "training":
            for claim in experiment.claims:
                one, other = (group.arms[name] for name in (claim.better, claim.than))
                if (difference := paired(measured(one, accuracy), measured(other, accuracy))) is not None:
                    yield Comparison(claim=claim, where=group.where, difference=difference, runs=(_config(one), _config(other)))
        elif experiment.kind == "weights":
            yield from _ablations(group)


def _ablations(group: Group) -> Iterator[Comparison]:
    """The weight against its ablations."""
    for by in group.arms.values():
        for name in (n for n in SCORES if n != WEIGHT):
            difference = paired(measured(by, area(WEIGHT)), measured(by, area(name)))
            if difference is not None:
                claim = Claim(better=WEIGHT, than=name)
                runs = (_config(by), _config(by))
                yield Comparison(claim=claim, where=group.where, difference=difference, runs=runs, unit="AUROC")


def _config(by: By) -> str:
    """The key of the configuration of an arm's runs, which differ in the seed alone."""
    return str(next(iter(by.values()))["config"])
