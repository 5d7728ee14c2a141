"""The experiments with their results, arranged for the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from renio_pipeline.study.findings import Comparison, Group, Pair, comparisons, groups
from renio_pipeline.study.plan import Experiment
from renio_pipeline.study.regression import Regression, regressions
from renio_pipeline.study.results import Record, Results


@dataclass(frozen=True, slots=True)
class Part:
    """An experiment and its results."""

    path: Path
    experiment: Experiment
    groups: list[Group]
    compared: list[Comparison]
    regressions: list[Regression]

    @property
    def measures(self) -> bool:
        """Models or teachers, which have a table at the top and no section."""
        return self.experiment.kind in ("models", "teachers")


def parts_of(experiments: dict[Path, Experiment], results: Results, seeds: int | None = None) -> list[Part]:
    """Each experiment with its part of the results."""
    found = {path: groups(path, e, results, seeds) for path, e in experiments.items()}
    teachers = {
        group.pair: record
        for path, e in experiments.items()
        if e.kind == "teachers"
        for group in found[path]
        for by in group.arms.values()
        for record in by.values()
    }
    return [_part(path, e, found[path], teachers) for path, e in experiments.items()]


def _part(path: Path, e: Experiment, found: list[Group], teachers: dict[Pair, Record]) -> Part:
    compared = list(comparisons(e, found))
    regressed = list(regressions(e.claims[0], found, compared, teachers)) if e.regress else []
    return Part(path, e, found, compared, regressed)
