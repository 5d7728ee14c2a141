"""From findings to a weighting: one table of rules, and what is known for each.

The rules are tried from the top, and the first that applies decides. They rest on leads of the project's own study, which is
small: students of 0.4 million parameters, one task, ten paired seeds a line. The thresholds are those of the weighting
``adaptive``, which measures recovery during a run: ``renio_pipeline.weightings.recovery``.

    what was found                                              λ   γ
    no verdicts, or too few wrong or right responses            (no advice)
    the teacher answers less often right than the student       (no advice)
    the teacher does no better before the pivotal token         0   1
    it recovers in more than SUFFIX_FROM of the cases           0   1, and a race
    it recovers in more than WEIGHTS_FROM                       0   0, and a race
    the interval holds WEIGHTS_FROM                             0   0, undecided
    it recovers in fewer                                        0   0

λ is 0 in all of them: uniform weights with γ = 0 gained with every teacher of the study (with the paper's entry clip, nothing).
ReNIO's weights with γ = 0 gained more with one of the three there that recover, and nothing that a probe measures tells these
apart, so the advice is to race them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import Pivotal
from renio_pipeline.evaluation.bootstrap import Estimate
from renio_pipeline.probe.numbers import OF_ERROR
from renio_pipeline.probe.results import Advice, Findings
from renio_pipeline.weightings.recovery import SUFFIX_FROM, WEIGHTS_FROM

RACE = (
    "ReNIO's weights may gain more or less than uniform ones with a teacher that recovers: race weighting.type=renio against "
    "this with renio arms"
)
FEW = 8  # fewer wrong, or right, responses say nothing
SOURCE = (
    "leads, no more: the project's own study of chained sums, students of 0.4 million parameters, 20 steps, n = 10 paired "
    "seeds unless said, 95 % intervals; its recoveries are of slips alone, a probe's of whatever the student does wrong"
)
HARD = (  # teachers that hardly ever recover
    "teacher that recovers from 0.2 % of slips: against uniform weights, uniform with γ = 0 is +6.0 [+4.8, +7.2] points, ReNIO "
    "−4.0 [−4.6, −3.5], ReNIO with γ = 0 +2.9 [+2.0, +3.8]",
    "self-distillation, 1.2 %: against uniform weights, uniform with γ = 0 is +4.2 [+3.3, +5.1] points, ReNIO −4.8 "
    "[−5.2, −4.3], ReNIO with γ = 0 +0.9 [−0.4, +2.2]",
)
SOFT = (
    "teacher that recovers from 19 % of slips (a probe finds 9.1 % of the student's errors): against uniform weights, ReNIO "
    "with γ = 0 is +11.1 [+8.0, +14.3] points, ReNIO +7.1 [+3.7, +10.4], uniform with γ = 0 +6.7 [+4.4, +9.0]",
    "teacher that recovers from 28 %: ReNIO against uniform weights +11.8 points, n = 3; γ = 0 was not tried",
    "against it: the first of these marks right steps as often as slips; with one that tells them apart, and recovers from "
    "97 % of slips (a probe finds 43 %), uniform with γ = 0 is +5.9 [+5.2, +6.6] points, ReNIO −5.0 [−5.6, −4.4], ReNIO with "
    "γ = 0 +3.0 [+2.2, +3.8]; with two more, of 15 and 50 % (4 and 12 %), ReNIO is −2.2 and −2.7 points",
)
ENTRY_CLIP = (
    "with the paper's entry clip 0.05 and τ 1.1, and a teacher that recovers from 0.2 %: against uniform weights, uniform "
    "with γ = 0 is +0.3 [−0.2, +0.8] points, ReNIO −1.8 [−2.4, −1.2]"
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the advice depends on besides the findings."""

    weighting: str  # the configured type
    pivotal: Pivotal
    entry_clip: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> Setting:
        clip = getattr(config.objective, "entry_clip", None)
        return cls(weighting=config.weighting.type, pivotal=config.pivotal, entry_clip=clip is not None)


def advise(found: Findings, setting: Setting) -> Advice:
    """What the findings speak for, with the reason and what it rests on."""
    threshold, cautions = _threshold(found, setting)
    if why := _nothing_to_say(found):
        overrides = _threshold_override(setting.weighting, threshold, setting)
        return Advice(
            weighting=None,
            threshold=threshold,
            overrides=overrides,
            reason=f"no advice on the weighting: {why}",
            cautions=cautions,
        )
    gamma, reason, evidence = _choice(found)
    if setting.entry_clip:
        evidence = [*evidence, ENTRY_CLIP]
    gamma_key = f"weighting.after_pivotal={gamma:g}"
    return Advice(
        weighting="uniform",
        strength=0.0,
        after_pivotal=gamma,
        threshold=threshold,
        overrides=["weighting.type=uniform", gamma_key, *_threshold_override("uniform", threshold, setting)],
        reason=reason,
        evidence=[*evidence, f"({SOURCE})"] if evidence else ["no line of the study has such a teacher"],
        cautions=cautions,
    )


def _nothing_to_say(found: Findings) -> str | None:
    """Why there is no advice on the weighting; None if there is."""
    if found.student_accuracy is None:
        return "the task gives no verdicts, so that neither accuracy nor recovery is known"
    for count, kind, what in (
        (found.wrong, "wrong", "how the teacher goes on from one"),
        (found.right, "right", "what the weights know of verdicts"),
    ):
        if count < FEW:
            return (
                f"{count} of {found.responses} responses are {kind}, too few to say {what} (at least {FEW}); raise --responses"
            )
    if found.recovery is None or found.recovery.prefixes < FEW:
        prefixes = found.recovery.prefixes if found.recovery else 0
        return (
            f"the teacher went on from {prefixes} wrong responses with a pivotal token, too few to say how it does (at least "
            f"{FEW}); raise --responses and --prefixes, or lower the threshold"
        )
    if found.teacher_accuracy and found.teacher_accuracy.high < found.student_accuracy.low:
        return (
            f"the teacher answers {_shown(found.teacher_accuracy)} of the problems correctly and the student "
            f"{_shown(found.student_accuracy)}, and no weighting mends that; choose another teacher"
        )
    return None


def _choice(found: Findings) -> tuple[float, str, list[str]]:
    """γ of uniform weights, the reason, and the lines of the study that it rests on."""
    recovery = found.recovery
    assert recovery is not None
    before, after, lost = recovery.before, recovery.after, recovery.lost
    assert before is not None
    assert after is not None
    assert lost is not None
    said = f"from just after the first pivotal token of wrong responses the teacher still answers {_shown(after)} correctly"
    said += _by_error(found)
    if lost.low <= 0:
        points = f"{_shown(before)} from just before it: that token is not where these responses go astray"
        return 1.0, f"{said}, and {points}", []
    said = f"{said}, {_shown(before)} from just before it"
    if after.high < WEIGHTS_FROM:
        why = "what follows it are prefixes that the teacher cannot mend, and their loss teaches nothing"
        return 0.0, f"{said}: {why}", list(HARD)
    if after.low > SUFFIX_FROM:
        why = f"so often (above {100 * SUFFIX_FROM:g} %) γ = 0 was never tried, and what follows teaches something; {RACE}"
        return 1.0, f"{said}: {why}", list(SOFT)
    if after.low > WEIGHTS_FROM:
        why = f"what leads astray comes first, and leaving out what follows gained with teachers that recover, too; {RACE}"
        return 0.0, f"{said}: {why}", list(SOFT)
    why = (
        f"undecided, because the interval holds {100 * WEIGHTS_FROM:g} %, near which no teacher was tried; uniform weights "
        "with γ = 0 gained with each kind of teacher, and more --prefixes, renio arms, or weighting.type=adaptive, which goes "
        "on measuring in the run, may decide"
    )
    return 0.0, f"{said}: {why}", [*HARD, *SOFT]


def _by_error(found: Findings) -> str:
    """The same by kinds of errors, where the task tells them apart: the study's recoveries are of slips alone."""
    kinds = [
        f"{g.group.removeprefix(OF_ERROR)} {_shown(g.after)}" for g in found.groups if g.group.startswith(OF_ERROR) and g.after
    ]
    return f" ({'; '.join(kinds)})" if kinds else ""


def _threshold(found: Findings, setting: Setting) -> tuple[float, list[str]]:
    """The threshold of pivotal tokens, raised where the numerics of generator and trainer alone could reach half of it."""
    threshold, clip = setting.pivotal.threshold, setting.pivotal.clip
    if found.mismatch is None or found.mismatch.mean.value <= threshold / 2:
        return threshold, []
    mean = found.mismatch.mean.value
    said = (
        f"generator and trainer log-probabilities differ by {mean:.2g} nats on average, more than half the threshold "
        f"({threshold:g}): their numerics alone could make tokens pivotal"
    )
    digits = 10 ** (1 - math.floor(math.log10(mean)))
    raised = math.ceil(2 * mean * digits) / digits
    if raised >= clip:
        return threshold, [f"{said}; set student_logprobs=trainer, as a threshold above that would reach the clip ({clip:g})"]
    return raised, [f"{said}; raise the threshold to {raised:g}, or keep it with student_logprobs=trainer"]


def _threshold_override(weighting: str, threshold: float, setting: Setting) -> list[str]:
    """The key of the threshold, where it is not what the weighting would have by itself."""
    changed = threshold != setting.pivotal.threshold
    moved = weighting != setting.weighting and threshold != Pivotal().threshold
    if not changed and not moved:
        return []
    return [f"{'weighting' if weighting == 'renio' else 'diagnostics'}.threshold={threshold:g}"]


def _shown(found: Estimate) -> str:
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"
