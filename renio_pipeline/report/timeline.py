"""When each stage of a step was active, and what the step waited for, from its line in ``metrics.jsonl``.

0 ── time/start ──> first prompt ── time/first_response ──> first response ... last response ... last score
                                             weigh, train and sync follow one another, up to time/step
"""

from __future__ import annotations

from collections.abc import Mapping

STAGES = ("generate", "score", "turns", "weigh", "train", "sync")
SPENT = ("generate", "score", "turns", "weigh", "train", "sync", "other")
Metrics = Mapping[str, float]
Bars = dict[str, list[tuple[float, float]]]  # stage -> its active intervals, in seconds since the start of the step


def bars(line: Metrics) -> Bars:
    """The intervals of each stage, in seconds. Stages without timing are left out.

    Work that was done before the step began (``max_staleness``) has negative times.
    """
    found: Bars = {}
    if {"time/start", "time/generate"} <= line.keys():
        begun = line["time/start"]
        found["generate"] = [(begun, begun + line["time/generate"])]
        if {"time/first_response", "time/score"} <= line.keys():
            first = begun + line["time/first_response"]
            found["score"] = [(first, first + line["time/score"])]
    if "time/train" not in line:
        return found
    synced = line["time/step"]
    awake = synced - line["time/sync"]
    trained = awake - line.get("time/turn_back", 0.0)
    weighed = trained - line["time/train"]
    begun = weighed - line["time/weigh"]
    taken = begun - (line.get("time/turns", 0.0) - line.get("time/turn_back", 0.0))
    if line.get("time/turns", 0.0) >= 0.001:  # without shared GPUs there is nothing to hand over
        found["turns"] = [(taken, begun), (trained, awake)]
    return found | {"weigh": [(begun, weighed)], "train": [(weighed, trained)], "sync": [(awake, synced)]}


def spent(line: Metrics) -> dict[str, float]:
    """The step's seconds by what it waited for. They add up to ``time/step``.

    generate: until the last response; score: from the last response until the last score; other: evaluation, checkpoints and
    pauses.
    """
    when = bars(line)
    generated = _end(when, "generate", 0.0)
    found = {"generate": generated, "score": _end(when, "score", generated) - generated}
    found |= {stage: line.get(f"time/{stage}", 0.0) for stage in ("turns", "weigh", "train", "sync")}
    return found | {"other": max(0.0, line["time/step"] - sum(found.values()))}


def _end(when: Bars, stage: str, default: float) -> float:
    return max(default, when[stage][0][1]) if stage in when else default
