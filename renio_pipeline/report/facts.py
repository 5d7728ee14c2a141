"""A run in a few lines: its configuration and its results so far."""

from __future__ import annotations

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.config.mixture import parts
from renio_pipeline.report.recorded import RecordedRun
from renio_pipeline.report.samples import Samples


def facts(run: RecordedRun, samples: Samples) -> list[tuple[str, str]]:
    """Pairs of name and value, in the order in which they are shown."""
    config, last = run.config, run.metrics[-1]["step"]
    seconds = sum(line.get("time/step", 0.0) for line in run.metrics)
    state = "ended" if run.ended else "no result yet: it is still running, or was interrupted"
    found = [
        ("Held-out accuracy", _accuracy(run)),
        ("AUROC of the weights", _auroc(samples)),
        ("Steps", f"{last} of {config.steps}, {state}"),
        ("Time in steps", f"{seconds / 3600:.1f} h" if seconds > 7200 else f"{seconds:.0f} s"),
        ("Student", config.student),
        ("Teacher", ", ".join(config.teacher_label(name) for name in config.all_teachers)),
        ("Method", config.method.type),
        ("Weighting", _weighting(config) if config.distils else ""),
        ("Objective", config.objective.label),
        ("Reward", _reward(config)),
        ("Task", config.task_label),
        ("Sources", ", ".join(f"{part.name} {part.share:.0%} of the prompts" for part in parts(config.data))),
        ("Batch", _batch(config)),
        ("Off-policy", _off_policy(config)),
        ("Resumed", f"{run.resumes} times" if run.resumes else ""),
        ("Quarantined", "; ".join(f"sample {r['sample_id']}: {r['reason']}" for r in run.rejected[:5])),
    ]
    return [(name, value) for name, value in found if value]


def notes(run: RecordedRun, shown: int) -> list[str]:
    """Notes for the reader of the page. ``shown``: the number of steps in its curves."""
    found = []
    if shown < len(run.metrics):
        found.append(f"The curves show {shown} of {len(run.metrics)} steps, evenly spaced.")
    recorded = bool(run.config.recorded_teachers)
    if run.config.student_logprobs == "trainer" and not (recorded and not run.config.live_teachers):
        found.append("Log-ratios use the generator's log-probabilities; weights and pivotal tokens use the trainer's.")
    if recorded:
        found.append(
            "Log-ratios of recorded responses use the log-probabilities of the student that wrote them; weights and pivotal "
            "tokens use the trainer's."
        )
    return found


def _reward(config: RunConfig) -> str:
    """The policy gradient beside the distillation."""
    reward = config.reward
    taught = "" if reward.teacher_when == "always" else f", teacher when {reward.teacher_when}"
    return f"coefficient {reward.coefficient:g}, baseline {reward.baseline}{taught}" if reward.coefficient else ""


def _weighting(config: RunConfig) -> str:
    """The weighting, what counts as a pivotal token, and the other keys that were changed."""
    changed = config.weighting.model_dump(mode="json", exclude_defaults=True, exclude={"type", "path", "threshold", "clip"})
    pivotal = f"threshold {config.pivotal.threshold:g}, clip {config.pivotal.clip:g}"
    return ", ".join([config.weighting.label, pivotal, *(f"{key} {value}" for key, value in changed.items())])


def _batch(config: RunConfig) -> str:
    kept = "" if config.filter == "all" else f", {config.filter} ones only"
    return f"{config.batch_size} samples per step, of up to {config.max_response_tokens} tokens{kept}"


def _off_policy(config: RunConfig) -> str:
    if config.recorded_teachers:
        whose = ", ".join(config.recorded_teachers) if config.teachers else ""
        return f"the responses {f'to rows of {whose} ' if whose else ''}are the recording's, weighed by log p_S of the trainer"
    if config.on_solutions:
        return "every response is its row's solution"
    off_policy = config.data.off_policy
    source = "the rows' solutions" if off_policy.source == "solution" else "responses by the teacher"
    return f"{off_policy.share:.0%} of the samples are {source}, with a weight of 1" if off_policy.share else ""


def _accuracy(run: RecordedRun) -> str:
    found = [line for line in run.evaluations if "accuracy" in line]
    if not found:
        return ""
    first, last = found[0], found[-1]
    end = f"{last['accuracy']:.1%} after step {last['step']}"
    return end if first is last else f"{first['accuracy']:.1%} after step {first['step']}, {end}"


def _auroc(samples: Samples) -> str:
    """The AUROC of the raw weights of all steps, as in ``result.json``."""
    from renio_pipeline.metrics.step_metrics import verdict_metrics

    if not samples.weights:
        return ""
    raw = np.concatenate([w.raw for w in samples.weights])
    found = verdict_metrics(raw, raw, [verdict for w in samples.weights for verdict in w.verdict])
    return f"{found['weights/auroc']:.3f}" if found else ""
