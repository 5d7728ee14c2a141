"""What ``data.off_policy`` cannot go with."""

from __future__ import annotations

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.teacher_writing import check_teachers_write

KEY = "data.off_policy"


def check_off_policy(config: RunConfig) -> None:
    """Raises ValueError that names the key to change. Rows without a solution are found where the rows are read."""
    off_policy = config.data.off_policy
    if not off_policy.share:
        return
    if config.objective.student_tokens_only:
        raise ValueError(
            f"{KEY}.share: objective {config.objective.label} is an estimate over tokens that the student sampled, and means "
            "nothing on others; set objective.type=jsd or top_k_forward_kl, or leave data.off_policy out"
        )
    if config.rewarded:
        raise ValueError(
            f"{KEY}.share: rewards are a policy's, whose probabilities the student's own responses alone have; leave "
            "data.off_policy out, or set reward.coefficient=0 (and method.type=opd)"
        )
    if config.filter != "all":
        raise ValueError(
            f"{KEY}.share: filter {config.filter} chooses among the student's own responses by their verdict, which others "
            "have not; set filter=all, or leave data.off_policy out"
        )
    if off_policy.source == "solution":
        return
    if config.reason_first is not None:
        raise ValueError(
            f"{KEY}.source: with method.reason_first the teacher writes analyses of the solution; what it writes to the "
            "student's prompt would be of another kind; set data.off_policy.source=solution"
        )
    if config.combine is not None:
        raise ValueError(
            f"{KEY}.source: one teacher writes a response, and combine mixes several; set data.off_policy.source=solution"
        )
    if config.privileged:
        shown = "method.type opsd" if config.method.type == "opsd" else "method.privileged"
        raise ValueError(
            f"{KEY}.source: {shown} shows the teacher the solution, so what it writes refers to a text that the student does "
            "not see; set data.off_policy.source=solution, or method.type=opd without method.privileged"
        )
    if config.deterministic and config.weighting.type == "adaptive":
        raise ValueError(
            f"{KEY}.source: in a deterministic run a teacher writes one thing at a time, and weighting adaptive has it write "
            "continuations meanwhile; set data.off_policy.source=solution, or deterministic=false"
        )
    check_teachers_write(config, f"{KEY}.source=teacher")


def check_all_by_student(config: RunConfig, command: str) -> None:
    """Raises ConfigError where a share of the responses is not the student's, which ``command`` does not give it."""
    if config.data.off_policy.share:
        raise ConfigError(f"{KEY}: {command} has the student write every response; set data.off_policy.share=0 for it")
