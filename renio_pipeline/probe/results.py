"""What a probe finds of each teacher, as JSON can hold it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.evaluation.bootstrap import Estimate
from renio_pipeline.preflight.folders import PROBES
from renio_pipeline.run_dir.checkpoint_files import write_durably

ALL = "all teachers"
FILE, CONTINUATIONS = "probe.json", "continuations.jsonl"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How often the teacher reaches a correct answer from a point in the responses of one group."""

    group: str
    prefixes: int  # responses from which it went on
    continuations: int  # of each, from each point
    before: Estimate | None  # share of correct answers, going on from just before the first pivotal token
    after: Estimate | None  # from just after it
    lost: Estimate | None  # before − after, paired by response


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """How far the generator's log-probabilities are from the trainer's, over response tokens."""

    mean: Estimate  # nats
    largest: float  # nats
    flipped: Estimate | None  # the share of the pivotal tokens that only one of the two finds pivotal; None: neither finds any


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Of one teacher. Shares are in [0, 1]; what is unknown or undefined is None."""

    teacher: str
    responses: int
    problems: int
    right: int
    wrong: int
    student_accuracy: Estimate | None
    teacher_accuracy: Estimate | None
    pivotal_share: Estimate | None  # of response tokens
    wrong_with_pivotal: Estimate | None  # share of the wrong responses that have a pivotal token
    right_with_pivotal: Estimate | None
    effective_sample_size: Estimate | None  # of ReNIO's weights, as a share of the samples
    auroc: dict[str, Estimate] = field(default_factory=dict)  # of each of ``metrics.weight_scores.SCORES``; empty: no verdicts
    tokens_after: Estimate | None = None  # share of response tokens after the first pivotal one
    loss_after: Estimate | None = None  # share of the loss, uniform weights
    loss_after_weighted: Estimate | None = None  # share of the loss, ReNIO's weights
    mismatch: Mismatch | None = None
    groups: list[Recovery] = field(default_factory=list)
    recovery: Recovery | None = None  # of all wrong responses that were gone on from


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Which weighting the findings speak for; or why they speak for none."""

    weighting: str | None  # a weighting.type; None: no advice
    strength: float | None = None  # λ
    after_pivotal: float | None = None  # γ
    threshold: float | None = None  # nats
    overrides: list[str] = field(default_factory=list)  # key=value
    reason: str
    evidence: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One teacher's findings and what they speak for."""

    findings: Findings
    advice: Advice


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole probe. The last of several teachers' entries is that of all of them together, whose advice is the run's."""

    made: str  # when, ISO 8601
    name: str  # of the configuration
    student: str
    seconds: float
    threshold: float  # nats, of pivotal tokens
    loss: str | None  # the objective of which the losses are; None: they were not measured
    entries: list[Probed]
    notes: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def advice(self) -> Advice:
        return self.entries[-1].advice


def write_report(report: Report, folder: Path) -> None:
    """Write ``probe.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False)
    write_durably(folder / FILE, text + "\n")


def newest(run: Path) -> Path | None:
    """The newest probe in a run's directory."""
    found = sorted(run.glob(f"{PROBES}/*/{FILE}"))
    return found[-1] if found else None


def read_report(path: Path) -> Report:
    """Read a ``probe.json``. Raises ConfigError if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        entries = [_probed(entry) for entry in values.pop("entries")]
        return Report(entries=entries, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is not written by renio probe, or damaged: {error!r}; remove it, or probe again") from None


def _probed(entry: dict[str, Any]) -> Probed:
    values = entry["findings"]
    plain = ("teacher", "responses", "problems", "right", "wrong")
    found: dict[str, Any] = {key: values.pop(key) for key in plain}
    found["auroc"] = {name: Estimate(**each) for name, each in values.pop("auroc").items()}
    found["groups"] = [_recovery(each) for each in values.pop("groups")]
    recovery, mismatch = values.pop("recovery"), values.pop("mismatch")
    found["recovery"] = None if recovery is None else _recovery(recovery)
    if mismatch is not None:
        found["mismatch"] = Mismatch(
            mean=Estimate(**mismatch["mean"]), largest=mismatch["largest"], flipped=_estimate(mismatch["flipped"])
        )
    found |= {key: _estimate(each) for key, each in values.items()}
    return Probed(findings=Findings(**found), advice=Advice(**entry["advice"]))


def _recovery(values: dict[str, Any]) -> Recovery:
    estimates = {key: _estimate(values[key]) for key in ("before", "after", "lost")}
    return Recovery(**values | estimates)


def _estimate(values: dict[str, float] | None) -> Estimate | None:
    return None if values is None else Estimate(**values)
