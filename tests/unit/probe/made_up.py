"""Findings without a probe: of a teacher that answers almost everything and hardly ever recovers, unless said otherwise."""

from __future__ import annotations

from typing import Any

from renio_pipeline.config.schema import Pivotal
from renio_pipeline.evaluation.bootstrap import Estimate
from renio_pipeline.probe.advice import Setting, advise
from renio_pipeline.probe.results import Findings, Probed, Recovery, Report


def of(value: float, half: float = 0.03) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def recovery(before: float = 0.98, after: float = 0.01, prefixes: int = 64, half: float = 0.03) -> Recovery:
    lost = Estimate(value=before - after, low=before - after - half, high=before - after + half)
    return Recovery(
        group="wrong, together", prefixes=prefixes, continuations=4, before=of(before, half), after=of(after, half), lost=lost
    )


def findings(**changes: Any) -> Findings:
    values: dict[str, Any] = {
        "teacher": "t",
        "responses": 256,
        "problems": 256,
        "right": 100,
        "wrong": 156,
        "student_accuracy": of(0.39),
        "teacher_accuracy": of(0.95),
        "pivotal_share": of(0.03),
        "wrong_with_pivotal": of(0.97),
        "right_with_pivotal": of(0.04),
        "effective_sample_size": of(0.7),
        "auroc": {"weight": of(0.97)},
        "recovery": recovery(),
    }
    return Findings(**values | changes)


def report(**changes: Any) -> Report:
    found = findings(groups=[recovery()], **changes)
    return Report(
        made="2026-01-02T03:04:05+0000",
        name="demo",
        student="embedded:student",
        seconds=12.0,
        threshold=0.8,
        loss="jsd",
        entries=[Probed(findings=found, advice=advise(found, Setting(weighting="renio", pivotal=Pivotal())))],
        notes=["a note"],
    )
