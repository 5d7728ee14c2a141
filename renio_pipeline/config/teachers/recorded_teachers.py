"""What a teacher whose signals were recorded (``teacher.type: recorded``) can be asked for, and what can be recorded."""

from __future__ import annotations

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.sections import HIDDEN

STATES = (
    "objective {label} needs the teacher's whole distribution, of which its hidden states are sent: they mean nothing without "
    "the teacher's output head, so they are not recorded; set objective.type=top_k_forward_kl or sampled"
)


def check_recorded(config: RunConfig, name: str) -> None:
    """Raise ValueError if a recorded teacher is asked for what no recording has, or another teacher has its key.

    Keys of an engine or of servers are let pass, and do nothing: the configuration that was recorded has them, and an override
    cannot take them out.
    """
    teacher, key = config.all_teachers[name], config.teacher_key(name)
    if teacher.type != "recorded":
        if teacher.path is not None:
            raise ValueError(f"{key}.path is a key of recorded teachers: set {key}.type=recorded, or leave it out")
        return
    if teacher.path is None:
        raise ValueError(f"{key}.path: required by type recorded; give the folder that renio score wrote")
    if name in config.own_tokenizers:
        raise ValueError(f"{key}.tokenizer: recordings are in the student's tokens; leave it out, or set {key}.type=vllm")
    if why := _unfit(config):
        raise ValueError(f"{key}.type: {why}, or {key}.type=vllm")


def _unfit(config: RunConfig) -> str | None:
    """Why a run cannot learn from a recording, and what to change; None if it can."""
    if not config.distils:
        return f"method {config.method.type} learns from rewards for what the student writes now; set method.type=opd"
    if config.follow is not None:
        return f"method.teacher {config.follow.teacher} follows the student, and a recording stays; set method.teacher=fixed"
    if config.reason_first is not None:
        return "method.reason_first has the teacher write analyses during the run; set method.reason_first=false"
    if config.objective.payload == HIDDEN:
        return STATES.format(label=config.objective.label)
    if config.combine is not None:
        return "combine mixes what several teachers say of one response, and a recording has one teacher's; set combine=null"
    if config.data.off_policy.share:
        return "the recording has the responses, and data.off_policy puts others in their places; leave data.off_policy out"
    if config.rewarded:
        return "rewards are for what the student writes now, and recorded responses are earlier ones; set reward.coefficient=0"
    if config.filter != "all":
        return f"filter {config.filter} needs verdicts, which recorded responses do not get; set filter=all"
    if config.placement == "colocated" and not config.generates:
        return "with placement colocated generators share the trainers' GPUs, and this run has none; set placement=separate"
    if config.weighting.wants_verdicts():
        return f"weighting {config.weighting.label} needs verdicts, which recorded responses do not get; choose another"
    return None


def check_recordable(config: RunConfig) -> None:
    """Raises ConfigError where a run's responses or its teacher's signals cannot be recorded. Names the key to change."""
    if not config.distils:
        raise ConfigError(f"method.type: {config.method.type} learns from no teacher, so there is nothing to record")
    check_live(config, "renio score")
    if config.follow is not None:
        raise ConfigError(
            f"method.teacher: {config.follow.teacher} follows the student during the run, and a recording is of one teacher; "
            "set method.teacher=fixed"
        )
    if config.reason_first is not None:
        raise ConfigError("method.reason_first: renio score has no analyses written; set method.reason_first=false for it")
    if config.objective.payload == HIDDEN:
        raise ConfigError(f"objective.type: {STATES.format(label=config.objective.label)}")
    if config.combine is not None:
        raise ConfigError(
            "combine: one teacher's signals are recorded of a response; set combine=null, and record each teacher"
        )
    if config.own_tokenizers:
        key = config.teacher_key(config.own_tokenizers[0], "tokenizer")
        raise ConfigError(f"{key}: recordings are in the student's tokens, and own reads others; take a teacher with same")
    if config.data.off_policy.share:
        raise ConfigError("data.off_policy: renio score has the student write every response; set data.off_policy.share=0")


def check_live(config: RunConfig, command: str) -> None:
    """Raises ConfigError for a recorded teacher, of which ``command`` asks what only a live one can answer."""
    for name in config.recorded_teachers:
        key = config.teacher_key(name, "type")
        raise ConfigError(f"{key}: {command} needs a teacher that answers, and a recorded one does not; set {key}=vllm")
