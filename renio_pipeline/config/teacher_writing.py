"""Which teachers can write texts, besides scoring those of the student."""

from __future__ import annotations

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.sections import HIDDEN


def teachers_write(config: RunConfig) -> bool:
    """Whether there is a teacher to go on from each response.

    A mixture has no text of its own, and a teacher with its own tokenizer cannot read the student's tokens.
    """
    return (
        config.combine is None
        and not config.own_tokenizers
        and not config.recorded_teachers
        and not any(_states_alone(config, name) or _without_ids(config, name) for name in config.all_teachers)
    )


def _states_alone(config: RunConfig, name: str) -> bool:
    """Whether a teacher's engine returns hidden states, and so writes no texts."""
    return config.all_teachers[name].type == "vllm" and config.objective.payload == HIDDEN


def _without_ids(config: RunConfig, name: str) -> bool:
    """Whether a served teacher's texts come without their token ids."""
    return config.all_teachers[name].type == "http" and config.all_teachers[name].api == "openai"


def check_teachers_write(config: RunConfig, wanted_by: str) -> None:
    """Raise ValueError if a teacher cannot write, with the keys to change.

    Args:
        wanted_by: the key that makes teachers write, for the message: ``method.reason_first``.
    """
    for name in config.recorded_teachers:
        key = config.teacher_key(name, "type")
        raise ValueError(f"{wanted_by}: a recorded teacher writes nothing; set {key}=vllm, or leave {wanted_by} out")
    for name in config.all_teachers:
        if _states_alone(config, name):
            raise ValueError(
                f"{wanted_by}: for objective {config.objective.label} a vllm teacher returns hidden states, and vLLM's engine "
                f"for those cannot write texts; set {config.teacher_key(name, 'type')}=torch, which does both, or "
                f"objective.type=top_k_forward_kl, or leave {wanted_by} out"
            )
        if _without_ids(config, name):
            raise ValueError(
                f"{wanted_by}: the interface openai returns texts without their token ids; set "
                f"{config.teacher_key(name, 'api')} to vllm or sglang, or leave {wanted_by} out"
            )


def check_no_analyses(config: RunConfig, command: str) -> None:
    """Raises ConfigError where teachers are to write analyses before they score, which ``command`` does not have them do."""
    if config.reason_first is not None:
        raise ConfigError(f"method.reason_first: {command} has no analyses written; set method.reason_first=false for it")
