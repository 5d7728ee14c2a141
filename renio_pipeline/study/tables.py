"""The tables of the study's page: Markdown, every number with its n."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from renio_pipeline.metrics.weight_scores import SCORES
from renio_pipeline.study.findings import POINTS, Comparison, Group, Measure, accuracy, area, gain, mean
from renio_pipeline.study.plan import Experiment
from renio_pipeline.study.statistics import Estimate

NOTHING = "–"
READINGS = {
    "held": "**held**",
    "reversed": "**reversed**",
    "better": "**better**",
    "worse": "**worse**",
    "no claim": "no claim",
}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose other columns are numbers."""
    line = "| " + " | ".join(["---", *["---:"] * (len(header) - 1)]) + " |"
    return "\n".join([_row(header), line, *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def shown(found: Estimate | None, digits: int = 1, *, sign: bool = False, unit: str = "") -> str:
    """An estimate as text: ``65.0 [63.1, 66.9] n=10``, without an interval if there is one seed. ``unit`` precedes n."""
    if found is None:
        return f"{NOTHING} n=0"
    form = f"{'+' if sign else ''}z.{digits}f"  # z: a zero has no sign
    interval = "" if math.isnan(found.low) else f" [{found.low:{form}}, {found.high:{form}}]"
    return f"{found.mean:{form}}{interval}{unit} n={found.n}"


def difference(found: Comparison, *, unit: bool = False) -> str:
    """The signed difference of a comparison, with the digits that suit its unit."""
    named = f" {found.unit}," if unit else ""
    return shown(found.difference, 1 if found.unit == "points" else 4, sign=True, unit=named)


def training_table(experiment: Experiment, groups: Sequence[Group]) -> str:
    """The results of each arm, and its cost if the experiment asks for it."""
    columns: list[tuple[str, Measure, int]] = [
        ("accuracy, %", accuracy, 1), ("gain, points", gain, 1), ("tokens a response", lambda r: r["after"]["tokens"], 1),
        ("unfinished, %", lambda r: POINTS * r["after"]["unfinished"], 1),
        ("marked, %", lambda r: POINTS * r["after"]["marked"], 1),
    ]  # fmt: skip
    if experiment.cost:
        columns += [
            ("tokens written, thousands", lambda r: r["generated_tokens"] / 1e3, 1),
            ("tokens trained on, thousands", lambda r: r["trained_tokens"] / 1e3, 1),
            ("seconds of a core", lambda r: r["core_seconds"], 1),
            ("points a million trained tokens", lambda r: gain(r) / (r["trained_tokens"] / 1e6), 0),
        ]
    rows = [
        [_name(group, arm), *(shown(mean(by, measure), digits) for _, measure, digits in columns)]
        for group in groups
        for arm, by in group.arms.items()
    ]
    return markdown(["", *(title for title, _, _ in columns)], rows)


def _name(group: Group, arm: str) -> str:
    return f"{group.where}: {arm}" if group.where else arm


def weights_tables(experiment: Experiment, groups: Sequence[Group]) -> str:
    """The AUROC of each score, and of the weight by prefix length."""
    by_group = {group.where: by for group in groups for by in group.arms.values()}
    scores = [[f"{name}: {what}", *_areas(by_group, name)] for name, what in SCORES.items()]
    lengths = [*map(str, experiment.prefixes), "whole"]
    prefixes = [[f"{name}, {n}", *_areas(by_group, name, n)] for name in ("weight", "mean log-ratio") for n in lengths]
    raw = [
        [f"mean raw weight, {verdict} answers", *(shown(mean(by, _raw(verdict)), 2) for by in by_group.values())]
        for verdict in ("correct", "wrong")
    ]
    header = ["AUROC", *by_group]
    return "\n\n".join(
        [
            markdown(header, scores),
            markdown(["weighed from the first tokens", *by_group], prefixes),
            markdown(["", *by_group], raw),
        ]
    )


def _areas(by_group: dict[str, dict[int, dict[str, object]]], name: str, prefix: str = "whole") -> list[str]:
    return [shown(mean(by, area(name, prefix)), 3) for by in by_group.values()]


def _raw(verdict: str) -> Measure:
    return lambda record: float(record["raw_weight"][verdict])


def models_table(groups: Sequence[Group]) -> str:
    """Each model's responses, by itself and after a slip."""
    columns: list[tuple[str, Measure]] = [
        ("parameters, thousands", lambda r: r["parameters"] / 1e3),
        *((f"{kind}, %", share_of("alone", kind)) for kind in ("correct", "slipped", "guessed", "unfinished", "marked")),
        ("tokens", lambda r: float(r["alone"]["tokens"])),
        ("after a slip: correct, %", share_of("after_slip", "correct")),
        ("after a slip: marked, %", share_of("after_slip", "marked")),
    ]
    rows = [
        [arm, *(shown(mean(by, measure), 1) for _, measure in columns)]
        for group in groups
        for arm, by in group.arms.items()
    ]  # fmt: skip
    return markdown(["", *(title for title, _ in columns)], rows)


def share_of(when: str, kind: str) -> Measure:
    """A share of a record, in percent."""
    return lambda record: POINTS * float(record[when][kind])


def comparisons_table(found: Sequence[Comparison]) -> str:
    rows = [[f"{c.where}: {c.claim.better} against {c.claim.than}", difference(c), READINGS[c.outcome]] for c in found]
    unit = found[0].unit if found else "points"
    return markdown(["compared", f"difference, {unit}", "reading"], rows)
