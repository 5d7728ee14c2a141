"""How often a teacher recovers, and which strength λ and factor γ that speaks for: the one place of these thresholds.

**Recovery** is the share of wrong responses that a teacher brings to a correct answer although it has to go on from just after
their first pivotal token. λ is how much of ReNIO's weights counts, γ the factor on the loss after that token.

    recovery    0 ────── WEIGHTS_FROM ────── SUFFIX_FROM ────── 1
    λ towards          0               1                   1
    γ towards          0               0                   1

This module is pure: ``observe`` adds evidence to a state, ``decide`` moves λ and γ. Neither knows a clock or a load.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from renio_pipeline.intervals import wilson

# Of the demo student's own wrong responses, which are slips and guesses, and between the two teachers that were probed: the
# clean one, which recovers from 0.2 % of slips, has 0.0 % [0.0, 4.6], the half-repairing one, from 19 %, 9.1 % [5.6, 14.4].
# With the first ReNIO's weights lost 4.0 points, with the second they gained 7.1. The dose series of the study speaks against
# it: with teachers that tell slips from right steps the weights lose 2.2 to 5 points, however often these recover (0 to 43 %
# there).
WEIGHTS_FROM = 0.05
# γ = 0 gained with every teacher that was tried, up to one that mends 97 % of slips and 43 % of its student's wrong responses.
# A teacher that mends nearly all of the wrong prefixes would teach about responses that end right; nobody has tried one.
SUFFIX_FROM = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen of one step. Of sums of these, and of the order in which they arrive, only the totals count."""

    trials: int  # wrong responses that the teacher finishes correctly from before the first pivotal token
    successes: int  # of these, the ones that it finishes correctly from after it too
    prefixes: int = 0  # wrong responses that were tried
    share: float = 0.0  # tokens that the teacher wrote for it, as a share of those that it scored in the step

    def __post_init__(self) -> None:
        assert 0 <= self.successes <= self.trials, f"{self.successes} of {self.trials}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How evidence moves λ and γ."""

    weights_from: float = WEIGHTS_FROM  # recovery
    suffix_from: float = SUFFIX_FROM  # recovery
    probes: int = 8  # trials that a decision needs since the last one
    memory: float = 0.95  # factor on older trials at each decision
    move: float = 0.25  # the most that λ and γ change in one decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """λ and γ, and the evidence for them. Uniform weights at first. All of it is numbers, which JSON keeps."""

    strength: float = 0.0  # λ
    after_pivotal: float = 1.0  # γ
    trials: float = 0.0  # of earlier decisions, faded
    successes: float = 0.0
    new_trials: int = 0  # since the last decision
    new_successes: int = 0
    strength_sign: int = 0  # which way the last decision's evidence pointed: 1 up, -1 down, 0 neither
    after_pivotal_sign: int = 0
    share: float = 0.0  # of the newest evidence

    @classmethod
    def of(cls, values: dict[str, Any] | None) -> Pace:
        """From what ``dataclasses.asdict`` gave, through JSON or not; None: the start."""
        return cls(**values or {})

    @property
    def all_trials(self) -> float:
        return self.trials + self.new_trials

    @property
    def recovery(self) -> tuple[float, float, float] | None:
        """The share of all evidence with its 95 % interval (Wilson's); None without trials."""
        successes, trials = self.successes + self.new_successes, self.all_trials
        if not trials:
            return None
        low, high = wilson(successes, trials)
        return successes / trials, low, high


def observe(pace: Pace, evidence: Evidence) -> Pace:
    """Add evidence. Nothing moves yet."""
    return replace(
        pace,
        new_trials=pace.new_trials + evidence.trials,
        new_successes=pace.new_successes + evidence.successes,
        share=evidence.share,
    )


def decide(pace: Pace, rules: Rules) -> Pace:
    """Move λ and γ by one step each at most, where the evidence points the same way as at the decision before.

    Too few new trials leave everything as it is, so that no evidence moves nothing, and no evidence counts twice.
    """
    found = pace.recovery
    if found is None or pace.new_trials < rules.probes:
        return pace
    _, low, high = found
    strength_sign, after_pivotal_sign = sign(low, high, rules.weights_from), sign(low, high, rules.suffix_from)
    return replace(
        pace,
        strength=_moved(pace.strength, strength_sign, pace.strength_sign, rules.move),
        after_pivotal=_moved(pace.after_pivotal, after_pivotal_sign, pace.after_pivotal_sign, rules.move),
        trials=pace.all_trials * rules.memory,
        successes=(pace.successes + pace.new_successes) * rules.memory,
        new_trials=0,
        new_successes=0,
        strength_sign=strength_sign,
        after_pivotal_sign=after_pivotal_sign,
    )


def sign(low: float, high: float, threshold: float) -> int:
    """On which side of the threshold an interval lies as a whole: 1 above, -1 below, 0 where it holds the threshold."""
    return int(low > threshold) - int(high < threshold)


def _moved(value: float, now: int, before: int, move: float) -> float:
    return min(1.0, max(0.0, value + now * move)) if now == before else value
