"""A probe on a terminal: tables with a row for each teacher, and the advice with its reasons."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich import box
from rich.table import Table

from renio_pipeline.evaluation.bootstrap import Estimate
from renio_pipeline.metrics.weight_scores import SCORES
from renio_pipeline.probe.results import Advice, Findings, Probed, Report

WIDTH = 110  # characters of a line of the advice

Rows = list[list[str]]  # the first is the heading


def sections(report: Report) -> dict[str, Rows]:
    """Every table of a probe by its title, as text. Shares are in %, with their 95 % intervals."""
    found = [entry.findings for entry in report.entries]
    tables = {
        "The student's responses and the teacher's, shares in %": [
            ["teacher", "responses", "wrong", "student correct", "teacher correct", "pivotal tokens", "effective sample size"],
            *([*_counted(f), *map(_share, (f.pivotal_share, f.effective_sample_size))] for f in found),
        ],
        "AUROC of the weight as a sign of a wrong answer, and of its ablations": [
            ["teacher", *SCORES],
            *([f.teacher, *(_area(f.auroc.get(name)) for name in SCORES)] for f in found if f.auroc),
        ],
        "What comes after a response's first pivotal token, in %": [
            ["teacher", "of the tokens", "of the loss, uniform", "of the loss, ReNIO", "wrong with one", "right with one"],
            *([f.teacher, *map(_share, _after(f))] for f in found),
        ],
        "Generator against trainer, log-probabilities in nats": [
            ["teacher", "mean difference", "largest", "threshold", "pivotal tokens that flip, %"],
            *(row for f in found if (row := _mismatch(f, report.threshold))),
        ],
        "The teacher goes on: correct answers, in %": [
            [
                "teacher",
                "responses",
                "number",
                "from just before the first pivotal token",
                "from just after it",
                "lost, points",
            ],
            *(row for f in found for row in _recovered(f)),
        ],
    }
    return {title: rows for title, rows in tables.items() if len(rows) > 1}


def tables(report: Report) -> Iterator[Table]:
    """The same for a terminal."""
    for title, (heading, *rows) in sections(report).items():
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, name in enumerate(heading):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        yield table


def advice_text(report: Report) -> str:
    """The advice of each entry, the run's last."""
    several = len(report.entries) > 1
    return "\n\n".join("\n".join(_folded(_advice(entry, several=several))) for entry in report.entries)


def _folded(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _advice(entry: Probed, *, several: bool) -> Iterator[str]:
    advice = entry.advice
    yield f"advice ({entry.findings.teacher})" if several else "advice"
    if advice.overrides:
        yield f"  {' '.join(advice.overrides)}"
    yield f"  {settings(advice)}"
    yield f"  because {advice.reason}" if advice.weighting else f"  {advice.reason}"
    yield from (f"  caution: {text}" for text in advice.cautions)
    yield from (f"  known: {text}" for text in advice.evidence)


def settings(advice: Advice) -> str:
    """The advice in the method's words."""
    threshold = f"threshold {advice.threshold:g}" if advice.threshold is not None else ""
    if advice.weighting is None:
        return threshold
    return f"{advice.weighting} weights, strength λ {advice.strength:g}, after_pivotal γ {advice.after_pivotal:g}, {threshold}"


def _counted(f: Findings) -> list[str]:
    graded = f.right + f.wrong
    wrong = f"{f.wrong} of {graded}" if graded else "no verdicts"
    return [f.teacher, f"{f.responses} to {f.problems} problems", wrong, _share(f.student_accuracy), _share(f.teacher_accuracy)]


def _after(f: Findings) -> tuple[Estimate | None, ...]:
    return f.tokens_after, f.loss_after, f.loss_after_weighted, f.wrong_with_pivotal, f.right_with_pivotal


def _mismatch(f: Findings, threshold: float) -> list[str]:
    if (m := f.mismatch) is None:
        return []
    mean = f"{m.mean.value:.2g} [{m.mean.low:.2g}, {m.mean.high:.2g}]"
    return [f.teacher, mean, f"{m.largest:.2g}", f"{threshold:g}", _share(m.flipped)]


def _recovered(f: Findings) -> Iterator[list[str]]:
    for r in (*f.groups, *([f.recovery] if f.recovery else [])):
        lost = f"{100 * r.lost.value:.1f} [{100 * r.lost.low:.1f}, {100 * r.lost.high:.1f}]" if r.lost else ""
        yield [f.teacher, r.group, f"{r.prefixes} x {r.continuations}", _share(r.before), _share(r.after), lost]


def _share(found: Estimate | None) -> str:
    return "" if found is None else f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _area(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
