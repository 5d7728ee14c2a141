"""The plots of the study's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.metrics.weight_scores import SCORES
from renio_pipeline.study.findings import POINTS, Comparison, Group, accuracy, area, mean, measured
from renio_pipeline.study.plan import Experiment
from renio_pipeline.study.regression import Regression
from renio_pipeline.study.statistics import Estimate

COLOURS = ("#1f5a99", "#c8501e", "#2d7d46", "#7a4a9e", "#9a7b12", "#b03060", "#3a8f9f", "#5f5f5f", "#8c564b")
INK, PALE = "#222222", "#b9bec6"


def plot(experiment: Experiment, groups: Sequence[Group], compared: Sequence[Comparison], path: Path) -> None:
    """Draw the picture of an experiment, according to its kind."""
    with _pyplot() as pyplot:
        if experiment.kind == "weights":
            figure = _weights(pyplot, experiment, groups)
        else:
            figure = _training(pyplot, experiment, groups, compared)
        _save(pyplot, figure, path)


@contextmanager
def _pyplot() -> Iterator[Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        yield pyplot


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


def _training(pyplot: Any, experiment: Experiment, groups: Sequence[Group], compared: Sequence[Comparison]) -> Any:
    """Left: accuracy after training, with a pale dot per seed. Right: the compared differences with their intervals."""
    arms = list(experiment.arms)
    rows = len(groups) * len(arms)
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10.5, 1.2 + 0.24 * max(rows, len(compared))), width_ratios=(1, 1), layout="constrained"
    )
    labels = [f"{g.where}: {arm}" if g.where else arm for g in groups for arm in arms]
    for row, (group, arm) in enumerate((g, arm) for g in groups for arm in arms):
        values = list(measured(group.arms[arm], accuracy).values())
        left.plot(values, [row] * len(values), "o", color=PALE, markersize=3, zorder=1)
        _dot(left, row, mean(group.arms[arm], accuracy), COLOURS[arms.index(arm) % len(COLOURS)])
    _rows(left, labels, "held-out accuracy after training, %: mean and interval")
    for row, c in enumerate(compared):
        _dot(right, row, c.difference, INK if c.outcome == "no claim" else COLOURS[1 if c.difference.mean < 0 else 0])
    right.axvline(0, color=PALE, linewidth=1, zorder=0)
    names = [f"{c.where}: {c.claim.better} − {c.claim.than}" for c in compared]
    _rows(right, names, "paired difference, points (black: no claim)")
    return figure


def _weights(pyplot: Any, experiment: Experiment, groups: Sequence[Group]) -> Any:
    """Left: AUROC of each score. Right: AUROC of the weight, by the length of the prefix that it is computed from."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 3.6), width_ratios=(1.2, 1), layout="constrained")
    lengths = [*map(str, experiment.prefixes), "whole"]
    for index, (group, by) in enumerate((g, by) for g in groups for by in g.arms.values()):
        colour, shift = COLOURS[index], 0.15 * (index - (len(groups) - 1) / 2)
        for row, name in enumerate(SCORES):
            _dot(left, row + shift, mean(by, area(name)), colour, label=group.where if row == 0 else None)
        found = [mean(by, area("weight", length)) for length in lengths]
        right.plot(lengths, [np.nan if f is None else f.mean for f in found], "o-", color=colour, markersize=4)
    _rows(left, list(SCORES), "AUROC as a sign of a wrong answer")
    if len(groups) > 1:
        left.legend(frameon=False, loc="best")
    right.set(xlabel="tokens that the weight is computed from", ylabel="AUROC of the weight")
    right.axhline(0.5, color=PALE, linewidth=1, zorder=0)
    return figure


def curves(experiment: Experiment, groups: Sequence[Group], path: Path) -> None:
    """Draw the share of each step's responses that are correct, averaged over seeds."""
    with _pyplot() as pyplot:
        figure, axes = pyplot.subplots(1, len(groups), figsize=(10.5, 3.0), sharey=True, squeeze=False, layout="constrained")
        for axis, group in zip(axes[0], groups, strict=True):
            for colour, (arm, by) in zip(COLOURS, group.arms.items(), strict=False):
                rows = [r["curves"]["accuracy"] for r in by.values()]
                steps = min(map(len, rows), default=0)
                mean_of = np.mean([row[:steps] for row in rows], axis=0) if rows else np.empty(0)
                axis.plot(range(1, steps + 1), POINTS * mean_of, color=colour, label=f"{arm} n={len(rows)}")
            axis.set(title=group.where, xlabel="step")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(frameon=False, fontsize=8)
            axis.grid(color="#ececec")
        axes[0][0].set_ylabel("responses that are right, %")
        _save(pyplot, figure, path)


def recoveries(found: Sequence[Regression], path: Path) -> None:
    """Draw each teacher's difference against each of its measures, with the line through them."""
    with _pyplot() as pyplot:
        figure, axes = pyplot.subplots(1, len(found), figsize=(10.5, 3.4), sharey=True, squeeze=False, layout="constrained")
        for axis, r in zip(axes[0], found, strict=True):
            axis.axhline(0, color=PALE, linewidth=1, zorder=0)
            for colour, t in zip(cycle(COLOURS), r.teachers, strict=False):
                axis.plot([t.at] * 2, [t.found.low, t.found.high], color=colour, linewidth=1.6)
                axis.plot([t.at], [t.found.mean], "o", color=colour, markersize=5, label=f"{t.where} n={t.found.n}")
            ends = [min(t.at for t in r.teachers), max(t.at for t in r.teachers)]
            axis.plot(ends, [r.over_teachers.at(x) for x in ends], color=INK, linewidth=1, linestyle="--", zorder=0)
            axis.set_xlabel(f"{r.predictor}, %", fontsize=8)
        axes[0][0].set_ylabel(f"{found[0].claim.better} − {found[0].claim.than}, points")
        axes[0][0].legend(frameon=False, fontsize=8)
        _save(pyplot, figure, path)


def _dot(axis: Any, row: float, found: Estimate | None, colour: str, label: str | None = None) -> None:
    if found is None:
        return
    axis.plot([found.low, found.high], [row, row], color=colour, linewidth=1.6)
    axis.plot([found.mean], [row], "o", color=colour, markersize=5, label=label, zorder=3)


def _rows(axis: Any, labels: Sequence[str], title: str) -> None:
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axis.set_xlabel(title)
    axis.grid(axis="x", color="#ececec")
    axis.set_axisbelow(True)
