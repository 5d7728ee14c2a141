"""From rounds and floors to figures: each a median with its spread, beside what it should reach."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

STAGES = {
    "generation": ("generator", "tokens/generated"),
    "scoring": ("teacher", "tokens/scored"),
    "training": ("trainer", "tokens/trained"),
}
VERBS = ("generate", "score", "weigh", "train", "sync")  # which overlap, but for the last three
REACH = {"tiny": 1.0, "tail": 2.0}  # times the baseline's samples a second, strictly on-policy
STAGE_REACH, OVERHEAD_REACH, START_REACH = 1.25, 0.10, 45.0
Step = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """``reach``: the least it should be, or with ``at_most`` the most; None: nothing is asked of it."""

    name: str
    median: float
    low: float
    high: float
    count: int
    reach: float | None = None
    at_most: bool = True

    @property
    def reached(self) -> bool | None:
        if self.reach is None:
            return None
        return self.median <= self.reach if self.at_most else self.median >= self.reach


def figure(name: str, values: Iterable[float], reach: float | None = None, *, at_most: bool = True) -> Figure:
    found = list(values)
    return Figure(name, statistics.median(found), min(found), max(found), len(found), reach, at_most)


def summarise(shape: str, rounds: Sequence[dict[str, Any]], floors: dict[str, dict[str, float]]) -> list[Figure]:
    """Of one shape. Kinds and floors that were not measured have no figures."""
    kinds = {kind: [r for r in rounds if r["kind"] == kind] for kind in ("baseline", "pipeline", "ahead")}
    figures = [f for kind, own in kinds.items() if own for f in _rates(kind, [s for r in own for s in r["steps"]])]
    for kind, least in (("pipeline", REACH[shape]), ("ahead", None)):
        if kinds[kind] and kinds["baseline"]:
            for unit in ("samples", "tokens"):
                reach = least if unit == "samples" else None
                figures.append(_ratio(f"{kind} over baseline, {unit}/s", kinds[kind], kinds["baseline"], unit, reach))
    if kinds["pipeline"]:
        steps = [s for r in kinds["pipeline"] for s in r["steps"]]
        figures += [_over_floor(stage, steps, floor) for stage, floor in floors.items()]
        if kinds["baseline"]:
            figures += [_of_baseline(stage, steps, kinds["baseline"], floor) for stage, floor in floors.items()]
        figures += [figure(f"seconds to {verb}", (s["metrics"][f"time/{verb}"] for s in steps)) for verb in VERBS]
        figures += _shares(steps, OVERHEAD_REACH if shape == "tail" else None)
        figures.append(figure("command to first step, s", (r["start"] for r in kinds["pipeline"]), START_REACH))
    figures += [_memory(role, own) for own in kinds.values() if own for role in own[0]["memory"]]
    return figures


def _rates(kind: str, steps: Sequence[Step]) -> list[Figure]:
    return [
        figure(f"{kind}, samples/s", (s["samples"] / s["seconds"] for s in steps)),
        figure(f"{kind}, tokens/s", (s["tokens"] / s["seconds"] for s in steps)),
        figure(f"{kind}, tokens a sample", (s["tokens"] / s["samples"] for s in steps)),
        figure(f"{kind}, CPU-ms a token", (1000 * s["cpu"] / s["tokens"] for s in steps)),
    ]


def _ratio(name: str, ours: Sequence[Any], theirs: Sequence[Any], unit: str, reach: float | None) -> Figure:
    """Of each step over the median of the baseline's round beside it: one machine is not as fast at all times."""

    def rates(one: Any) -> list[float]:
        return [s[unit] / s["seconds"] for s in one["steps"]]

    found = [rate / statistics.median(rates(b)) for a, b in zip(ours, theirs, strict=False) for rate in rates(a)]
    return figure(name, found, reach, at_most=False)


def _over_floor(stage: str, steps: Sequence[Step], floor: dict[str, float]) -> Figure:
    role, tokens = STAGES[stage]
    costs = (s["by_role"][role] / s["metrics"][tokens] / floor["median"] for s in steps)
    return figure(f"{stage}, CPU-seconds over its floor's", costs, STAGE_REACH)


def _of_baseline(stage: str, steps: Sequence[Step], baseline: Sequence[Any], floor: dict[str, float]) -> Figure:
    """What is left for all else if the pipeline is to be as fast: on-policy, generation ends before training begins."""
    tokens = STAGES[stage][1]
    seconds = statistics.median(s["seconds"] for r in baseline for s in r["steps"])
    costs = (floor["median"] * s["metrics"][tokens] / seconds for s in steps)
    return figure(f"{stage}'s floor, CPU-seconds over the baseline's whole step", costs)


def _shares(steps: Sequence[Step], reach: float | None) -> list[Figure]:
    def share(of: Callable[[Step], float]) -> list[float]:
        return [of(s) / s["cpu"] for s in steps]

    roles = sorted(
        {role for s in steps for role in s["overhead"]}, key=lambda role: -sum(s["overhead"].get(role, 0) for s in steps)
    )
    total = figure("driver, Ray and messages, share of CPU-seconds", share(lambda s: sum(s["overhead"].values())), reach)
    parts = [figure(f"  of {role}", share(lambda s, role=role: s["overhead"].get(role, 0.0))) for role in roles]  # type: ignore[misc]
    return [total, *parts]


def _memory(role: str, rounds: Sequence[Any]) -> Figure:
    kind = rounds[0]["kind"]
    of = role if role == kind else f"{kind}'s {role}"
    return figure(f"peak memory of {of}, MB", (r["memory"][role] / 1e6 for r in rounds if role in r["memory"]))
