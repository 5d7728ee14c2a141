"""The tables of teachers: what was measured of each, and what an arm's gain has to do with it."""

from __future__ import annotations

from collections.abc import Sequence

from renio_pipeline.study.findings import POINTS, By, Group, Measure, mean
from renio_pipeline.study.regression import Regression
from renio_pipeline.study.tables import NOTHING, markdown, share_of, shown

SIDES = ("before", "after")  # the first pivotal token


def teachers_table(groups: Sequence[Group]) -> str:
    """Whether each teacher notices slips, and how often it answers correctly after one and after its student's own errors."""
    columns: list[tuple[str, Measure]] = [
        ("correct by itself, %", share_of("alone", "correct")),
        ("slips marked at once, %", share_of("marked_at_once", "slips")),
        ("right steps marked at once, %", share_of("marked_at_once", "right steps")),
        ("correct after a slip, %", share_of("after_slip", "correct")),
    ]
    losses: list[tuple[str, Measure]] = [
        ("loss on right responses, % of it", share_of("loss", "right")),
        ("loss after first pivotal tokens, % of it", share_of("loss", "after_pivotal")),
    ]
    own = [f"correct from just {side} the student's own first pivotal token, %" for side in SIDES]
    rows = [
        [
            group.where,
            *(shown(mean(by, measure), 1) for _, measure in columns),
            *(_of_own_errors(by, side) for side in SIDES),
            *(shown(mean(by, measure), 1) for _, measure in losses),
        ]
        for group in groups
        for by in group.arms.values()
    ]
    return markdown(["", *(title for title, _ in columns), *own, *(title for title, _ in losses)], rows)


def _of_own_errors(by: By, side: str) -> str:
    """Of the first seed, with the interval over responses: ``9.1 [5.6, 14.4] n=80``, where n counts the wrong responses."""
    if not by:
        return f"{NOTHING} n=0"
    found = by[min(by)]["own_errors"]
    value, low, high = (POINTS * share for share in found[side])
    return f"{value:.1f} [{low:.1f}, {high:.1f}] n={found['prefixes']}"


def regressions_table(found: Sequence[Regression]) -> str:
    """Each teacher's measures and difference, and what the line over the other teachers says of it."""
    rows = [
        [
            f"{t.where}, {r.predictor}",
            f"{t.at:.1f} n=1",
            shown(t.found, sign=True),
            NOTHING if t.expected is None else f"{t.expected:+.1f} n={len(r.teachers) - 1}",
            "yes" if t.agrees else "**no**",
        ]
        for r in found
        for t in r.teachers
    ]
    header = [
        "teacher, and what is measured of it",
        "measured, %",
        "difference, points",
        "foretold by the other teachers, points",
        "sign foretold",
    ]
    return markdown(header, rows)
