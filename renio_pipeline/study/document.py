"""The study's page: made from the experiments' files and the raw results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.metrics.weight_scores import WEIGHT
from renio_pipeline.run_dir.checkpoint_files import write_durably
from renio_pipeline.study import prose, reading
from renio_pipeline.study.findings import area, mean
from renio_pipeline.study.models import RECIPES, Further, grown_sizes
from renio_pipeline.study.parts import Part, parts_of
from renio_pipeline.study.plan import Experiment
from renio_pipeline.study.plots import curves, plot, recoveries
from renio_pipeline.study.recovery_tables import regressions_table, teachers_table
from renio_pipeline.study.results import Results
from renio_pipeline.study.statistics import CLAIM_PAIRS, LEVEL
from renio_pipeline.study.tables import (
    comparisons_table,
    models_table,
    training_table,
    weights_tables,
)
from renio_pipeline.tasks.arithmetic import Arithmetic

PAPER = "2606.23104"
PAGE = "index.md"


def write_study(experiments: dict[Path, Experiment], out: Path, seeds: int | None = None) -> Path:
    """Write the page (``index.md``) and its plots into ``out``. Returns the page.

    Raises:
        ConfigError: there are no results.
    """
    results = Results(out)
    if not results.records:
        raise ConfigError(f"--out: {out} has no results; leave out --report-only to compute them")
    parts = parts_of(experiments, results, seeds)
    for part in parts:
        if not part.measures:
            plot(part.experiment, part.groups, part.compared, out / f"{part.experiment.experiment}.png")
        if part.experiment.curves:
            curves(part.experiment, part.groups, out / f"{part.experiment.experiment}-steps.png")
        if part.regressions:
            recoveries(part.regressions, out / f"{part.experiment.experiment}-recovery.png")
    page = out / PAGE
    write_durably(page, text_of(parts, results))
    return page


def text_of(parts: Sequence[Part], results: Results) -> str:
    """The text of the page, which depends only on the experiments and the results."""
    sections = [_section(part) for part in parts if not part.measures]
    return "\n\n".join([_top(parts, results), *sections, f"## What this does not say\n\n{prose.LIMITS}"]) + "\n"


def _top(parts: Sequence[Part], results: Results) -> str:
    named = [(part.experiment.experiment, c) for part in parts for c in part.compared]
    introduction = prose.INTRODUCTION.format(
        paper=PAPER,
        command="renio study",
        level=LEVEL,
        pairs=CLAIM_PAIRS,
        compared=len(named),
        by_chance=(1 - LEVEL) * len(named),
    )
    of_models = [part for part in parts if part.experiment.kind == "models"]
    parameters = [r["parameters"] for part in of_models for g in part.groups for by in g.arms.values() for r in by.values()]
    summary = [reading.of_size(parameters, grown_sizes()), reading.of_cost(results.records.values()), reading.overall(named)]
    summary.append(reading.of_everywhere(named, "adaptive", "uniform"))
    example = Arithmetic().rows("held_out", 1)[0]
    return "\n\n".join(
        [
            f"# The study\n\n{introduction}",
            "## What held, and what did not",
            *(text for text in summary if text),
            "## Task, models and settings",
            prose.TASK.format(problem=example.problem, solution=example.solution),
            prose.TEACHERS.format(recipes=_recipes()),
            *(f"**{p.experiment.question}** {p.experiment.chosen}\n\n{_measured(p)}" for p in parts if p.measures),
            *(_settings(load(run)) for run in sorted({p.path.parent / p.experiment.run for p in parts})),
        ]
    )


def _measured(part: Part) -> str:
    return models_table(part.groups) if part.experiment.kind == "models" else teachers_table(part.groups)


def _recipes() -> str:
    return ", ".join(f"`{name}` by {r.steps} further steps of `{r.start}`{_more(r)}" for name, r in RECIPES.items())


def _more(r: Further) -> str:
    """What sets a recipe apart from the others."""
    layers = f", grown to {r.layers} layers" if r.layers else ""
    forgets = f", with {r.unborrowed:.0%} of the borrowing left out" if r.unborrowed else ""
    return layers + forgets + (f", with {r.noticed:.0%} of the slips marked" if r.noticed < 1 else "")


def _settings(config: RunConfig) -> str:
    c, w, t = config, config.pivotal, config.trainer
    return (
        f"Unless an experiment says otherwise: {c.steps} steps of {c.batch_size} responses of up to {c.max_response_tokens} "
        f"tokens, temperature {c.temperature:g}, objective `{c.objective.type}`, learning rate {t.lr:g} ({t.schedule}), "
        f"weights with threshold {w.threshold:g} and clip {w.clip:g}, {c.evaluate.problems} held-out problems. The files in "
        "`configs/study` say how everything was chosen."
    )


def _section(part: Part) -> str:
    e, found, compared = part.experiment, part.groups, part.compared
    if e.kind == "weights":
        areas = {group.where: mean(by, area(WEIGHT)) for group in found for by in group.arms.values()}
        table, text = weights_tables(e, found), f"{reading.of_weights(areas)} {reading.of_experiment(compared)}"
    else:
        table, text = training_table(e, found), reading.of_experiment(compared) + reading.of_regression(part.regressions)
        text += reading.of_harm(e, found)
    shows = {"": True, "-steps": e.curves, "-recovery": bool(part.regressions)}
    pictures = [f"{e.experiment}{what}" for what, shown in shows.items() if shown]
    return "\n\n".join(
        [
            f"## ({e.experiment}) {e.title}",
            f"**{e.question}**",
            e.chosen,
            f"*Reading.* {text}",
            *(f"![{e.title}]({name}.png)" for name in pictures),
            comparisons_table(compared),
            *([regressions_table(part.regressions)] if part.regressions else []),
            table,
        ]
    )
