"""Which teachers can write texts, besides scoring those of the student."""

from __future__ import annotations

from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.sections import HIDDEN


def check_teachers_write(config: RunConfig, wanted_by: str) -> None:
    """Raise ValueError if a teacher cannot write, with the keys to change.

    Args:
        wanted_by: the key that makes teachers write, for the message: ``method.reason_first``.
    """
    for name, teacher in config.all_teachers.items():
        if teacher.type == "vllm" and config.objective.payload == HIDDEN:
            raise ValueError(
                f"{wanted_by}: for objective {config.objective.label} a vllm teacher returns hidden states, and vLLM's engine "
                f"for those cannot write texts; set {config.teacher_key(name, 'type')}=torch, which does both, or "
                f"objective.type=top_k_forward_kl, or leave {wanted_by} out"
            )
