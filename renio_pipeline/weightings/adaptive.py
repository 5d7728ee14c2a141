"""ReNIO's weights and the factor after the first pivotal token, by what the teacher is found to recover from in the run."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from renio_pipeline.config.teacher_writing import teachers_write
from renio_pipeline.weightings.base import ScoredBatch, State, Weights
from renio_pipeline.weightings.recovery import SUFFIX_FROM, WEIGHTS_FROM, Evidence, Pace, Rules, decide, observe
from renio_pipeline.weightings.renio import PivotalWeights

WINDOW = 32  # tokens on either side of the first pivotal one, for the signal ``scores``


class Adaptive(PivotalWeights):
    """Starts as ``uniform`` and moves strength λ and factor γ of ``renio`` by the teacher's recovery, measured during the run.

    State: ``{"batches": int, "pace": …, "renio": …}``: the batches weighed, the fields of ``recovery.Pace``, and the state of
    the weights themselves.
    """

    without_verdicts: ClassVar[str] = "set weighting.signal=scores and its keys, or weighting.type=uniform"

    type: Literal["adaptive"] = "adaptive"
    signal: Literal["auto", "probe", "scores"] = Field(
        "auto",
        description="What shows recovery. probe: the teacher goes on from before and after the first pivotal token of wrong "
        "responses; scores: its log-probabilities around it, without verdicts; auto: probe, unless a teacher cannot write.",
    )
    every: PositiveInt = Field(1, description="Steps from one look at the signal to the next.")
    prefixes: PositiveInt = Field(12, description="Wrong responses from which the teacher goes on at a time, at most.")
    share: float = Field(
        0.5,
        gt=0,
        le=4,
        description="The most tokens that the teacher may write for it in such a step, as a share of those it scores.",
    )
    probes: PositiveInt = Field(8, description="Usable probes, or responses of the signal scores, that a decision needs.")
    memory: float = Field(0.95, gt=0, le=1, description="Factor on older evidence at each decision.")
    move: float = Field(0.25, gt=0, le=1, description="The most that λ and γ change at a decision.")
    weights_from: float | None = Field(
        None, ge=0, le=1, description=f"Recovery from which λ rises, and below which it falls; null: {WEIGHTS_FROM} for probe."
    )
    suffix_from: float | None = Field(
        None, ge=0, le=1, description=f"Recovery from which γ rises, and below which it falls; null: {SUFFIX_FROM} for probe."
    )
    fall: PositiveFloat | None = Field(
        None,
        description=f"For the signal scores, which needs it: a response counts as recovered where the teacher's mean "
        f"log-probability falls by less (nats) from the {WINDOW} tokens before the first pivotal one to the {WINDOW} after it.",
    )

    @model_validator(mode="after")
    def _thresholds_in_order(self) -> Self:
        rules = self.rules
        if rules.weights_from > rules.suffix_from:
            raise ValueError(
                f"weights_from ({rules.weights_from}) must not exceed suffix_from ({rules.suffix_from}): a teacher whose "
                "answers to wrong prefixes are worth learning from is no reason to weigh wrong responses less"
            )
        return self

    @property
    def rules(self) -> Rules:
        given = {"weights_from": self.weights_from, "suffix_from": self.suffix_from}
        chosen = {name: value for name, value in given.items() if value is not None}
        return Rules(probes=self.probes, memory=self.memory, move=self.move, **chosen)

    def wants_verdicts(self) -> bool:
        return self.signal != "scores"

    def check(self, config: Any) -> None:
        super().check(config)
        why = _no_probe(config)
        if self.signal_of(config) == "scores":
            self._check_scores(f", or use the signal probe: {why}" if why else "")
        elif why is not None:
            raise ValueError(f"weighting.signal probe: {why}; or set weighting.signal=scores")
        elif config.filter == "correct":
            raise ValueError(
                "weighting adaptive looks at how the teacher goes on from wrong responses, and filter correct keeps none; set "
                "filter=all or filter=incorrect"
            )

    def _check_scores(self, instead: str) -> None:
        missing = [f"weighting.{key}" for key in ("fall", "weights_from", "suffix_from") if getattr(self, key) is None]
        if missing:
            raise ValueError(
                f"weighting.signal scores needs {', '.join(missing)}: from which fall of the teacher's log-probability on a "
                "response helps or hurts differs with model and task, and nothing is known that could be a default; give "
                f"them{instead}"
            )

    def signal_of(self, config: Any) -> Literal["probe", "scores"]:
        """The signal that a run with this configuration uses."""
        if self.signal == "auto":
            return "probe" if _no_probe(config) is None else "scores"
        return self.signal

    def due(self, state: State) -> bool:
        """Whether the signal is looked at in the step that was weighed last. ``state``: the one after it."""
        return bool(state) and (state["batches"] - 1) % self.every == 0

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        """The weights by the evidence that is in the state."""
        pace, own = pace_of(state), state["renio"] if state else None
        found = self.weighed(batch, own, strength=pace.strength, after_pivotal=pace.after_pivotal)
        after = {"batches": 1 + (state["batches"] if state else 0), "pace": asdict(pace), "renio": found.state}
        return replace(found, state=after)

    def learned(self, state: State, evidence: Evidence) -> State:
        """The state with evidence, and with λ and γ moved where that speaks for it."""
        return {**state, "pace": asdict(decide(observe(pace_of(state), evidence), self.rules))}

    def evidence(self, batch: ScoredBatch) -> Evidence:
        """What the signal scores says of a batch."""
        assert self.fall is not None, "check refuses scores without it"
        falls = [
            fall_after(teacher, student.astype(np.float32) - teacher.astype(np.float32) >= np.float32(self.threshold))
            for student, teacher in zip(batch.student_logprobs, batch.teacher_logprobs, strict=True)
        ]
        seen = [fall for fall in falls if fall is not None]
        return Evidence(trials=len(seen), successes=sum(fall < self.fall for fall in seen), prefixes=len(seen))

    def state_metrics(self, state: State) -> dict[str, float]:
        pace = pace_of(state)
        found = {
            "adaptive/strength": pace.strength,
            "adaptive/after_pivotal": pace.after_pivotal,
            "adaptive/probes": pace.all_trials,
            "adaptive/share": pace.share,
        }
        if pace.recovery is not None:
            names = ("adaptive/recovery", "adaptive/recovery_low", "adaptive/recovery_high")
            found |= dict(zip(names, pace.recovery, strict=True))
        return found


def _no_probe(config: Any) -> str | None:
    """Why the teacher cannot go on from responses, and what to change; None if it can."""
    if config.combine is not None:
        return "none of the teachers that combine mixes goes on as their mixture does; leave combine out"
    if config.recorded_teachers:
        return "a recorded teacher goes on from no response; set teacher.type=vllm or torch"
    if config.own_tokenizers:
        return "a teacher with its own tokenizer cannot go on from the student's tokens; take one with tokenizer=same"
    if any(teacher.type == "http" and teacher.api == "openai" for teacher in config.all_teachers.values()):
        return "the interface openai returns texts without their token ids; set its api to vllm or sglang"
    if not teachers_write(config):
        return (
            "a vllm teacher that returns hidden states cannot write texts; set teacher.type=torch, which does both, or "
            "objective.type=top_k_forward_kl"
        )
    return None


def pace_of(state: State) -> Pace:
    """λ, γ and the evidence in a weighting's state; None: the start."""
    return Pace.of(None if state is None else state["pace"])


def fall_after(teacher: np.ndarray, pivotal: np.ndarray) -> float | None:
    """How far the mean of log p_T falls from before the first pivotal token to after it, over up to ``WINDOW`` tokens each.

    Args:
        teacher: [T] log p_T in nats.
        pivotal: [T] bool, which tokens are pivotal.

    Returns:
        Nats; None where no token is pivotal, or the first one is the first or the last token of the response.
    """
    if not pivotal.any():
        return None
    first = int(pivotal.argmax())
    before, after = teacher[max(0, first - WINDOW) : first], teacher[first + 1 : first + 1 + WINDOW]
    if not len(before) or not len(after):
        return None
    return float(before.mean(dtype=np.float64) - after.mean(dtype=np.float64))
