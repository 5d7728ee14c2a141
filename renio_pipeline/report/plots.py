"""The report's plots as PNG, for slides and papers; the page draws the same plots with plotly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from renio_pipeline.report.curves import AUROC, EVALUATIONS, IDLE, Curve, curves_of
from renio_pipeline.report.recorded import RecordedRun, sources_of
from renio_pipeline.report.samples import VERDICTS, Samples
from renio_pipeline.report.timeline import SPENT, STAGES, bars, spent

RUN_COLOURS = ("#0072b2", "#d55e00", "#00866a", "#b3559a", "#8a6d00", "#3a4a5e")
STAGE_COLOURS = dict(zip(SPENT, ("#0072b2", "#56b4e9", "#999999", "#cc79a7", "#d55e00", "#009e73", "#c3c9d2"), strict=True))
DASHES = ("-", "--", ":", "-.")
INCHES = (6.4, 3.8)


def write_plots(runs: Sequence[RecordedRun], samples: Sequence[Samples], folder: Path) -> list[Path]:
    """Write one file per curve, and ``timeline``, ``spent``, ``idle`` and ``weights``, which have one panel per run."""
    folder.mkdir(exist_ok=True)

    def curve(of: Curve) -> Path:
        return _save(folder / f"{of.id}.png", 1, lambda parts: _lines(parts[0], of, runs))

    def each(name: str, draw: Callable[[Any, RecordedRun, Samples], None]) -> Path:
        def parts(axes: list[Any]) -> None:
            for part, run, found in zip(axes, runs, samples, strict=True):
                draw(part, run, found)
                if len(runs) > 1:
                    part.set_title(f"{_plain(run.label)}: {part.get_title()}")

        return _save(folder / f"{name}.png", len(runs), parts)

    return [
        *(curve(of) for of in (*curves_of(sources_of(runs), (line for run in runs for line in run.metrics)), AUROC)),
        each("timeline", lambda axes, run, _: _timeline(axes, run)),
        each("spent", lambda axes, run, _: _spent(axes, run)),
        each("idle", lambda axes, run, _: _lines(axes, IDLE, [run])),
        each("weights", lambda axes, _, found: _weights(axes, found)),
    ]


def _save(path: Path, rows: int, draw: Callable[[list[Any]], None]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES[0], INCHES[1] * rows), layout="constrained")  # without pyplot: no window, no state
    draw(list(figure.subplots(rows, 1, squeeze=False)[:, 0]))
    aside = path.with_name(f".{path.name}.aside")
    figure.savefig(aside, dpi=150, format="png")
    aside.replace(path)
    return path


def _lines(axes: Any, curve: Curve, runs: Sequence[RecordedRun]) -> None:
    several = len(curve.metrics) > 1
    for index, run in enumerate(runs):
        prefix = f"{_plain(run.label)}, " if len(runs) > 1 else ""
        for m, (metric, name) in enumerate(zip(curve.metrics, curve.names, strict=True)):
            at = m if several else index
            there = [line for line in run.metrics if metric in line]
            axes.plot(
                [line["step"] for line in there],
                [line[metric] for line in there],
                DASHES[at % 4],
                color=RUN_COLOURS[at % 6],
                label=(prefix + name).removesuffix(", ") or None,
                marker="o" if len(there) == 1 else None,
            )
        if curve.evaluations and run.evaluations:
            _evaluations(axes, curve.evaluations, run, RUN_COLOURS[index % 6], prefix)
    axes.set(title=curve.title, xlabel="step", ylabel=curve.axis)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _finish(axes, percent=curve.percent)


def _evaluations(axes: Any, key: str, run: RecordedRun, colour: str, prefix: str) -> None:
    found = [line for line in run.evaluations if key in line]
    bounds = key == "accuracy" and all({"low", "high"} <= line.keys() for line in found)
    values = [line[key] for line in found]
    spread = [
        [v - e["low"] for v, e in zip(values, found, strict=True)],
        [e["high"] - v for v, e in zip(values, found, strict=True)],
    ]
    axes.errorbar(
        [line["step"] for line in found],
        values,
        yerr=spread if bounds else None,
        fmt="D",
        color=colour,
        markersize=5,
        capsize=3,
        label=prefix + EVALUATIONS[key],
    )


def _timeline(axes: Any, run: RecordedRun) -> None:
    """The timeline of the last step."""
    when = bars(run.metrics[-1])
    stages = [stage for stage in STAGES if stage in when]
    for row, stage in enumerate(stages):
        axes.broken_barh([(start, end - start) for start, end in when[stage]], (row - 0.35, 0.7), color=STAGE_COLOURS[stage])
    axes.set_yticks(range(len(stages)), stages)
    axes.invert_yaxis()
    axes.axvline(run.metrics[-1]["time/step"], linestyle=":", color="#566274")
    axes.set(title=f"Step {run.metrics[-1]['step']}, stage by stage", xlabel="seconds since the step began")


def _spent(axes: Any, run: RecordedRun) -> None:
    steps = [line["step"] for line in run.metrics]
    times = [spent(line) for line in run.metrics]
    names = [name for name in SPENT if any(t[name] >= 0.001 for t in times)]
    axes.stackplot(
        steps, [[t[name] for t in times] for name in names], labels=names, colors=[STAGE_COLOURS[name] for name in names]
    )
    axes.set(title="What each step waited for", xlabel="step", ylabel="seconds")
    _finish(axes)


def _weights(axes: Any, samples: Samples) -> None:
    pairs = [(v, float(x)) for w in samples.weights for v, x in zip(w.verdict, w.weight, strict=True)]
    groups = {verdict or "no verdict": [x for v, x in pairs if v == verdict] for verdict in VERDICTS}
    groups = {name: values for name, values in groups.items() if values}
    if groups:
        axes.boxplot(list(groups.values()), orientation="horizontal", tick_labels=list(groups), showmeans=True)
        axes.invert_yaxis()
    axes.set(title="Weight against verdict, all steps", xlabel="weight")


def _finish(axes: Any, *, percent: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _plain(label: str) -> str:
    """Escape a label: matplotlib reads formulas between dollar signs, and hides labels that begin with an underscore."""
    return label.replace("$", r"\$").lstrip("_")
