"""What teachers send of their signals in a step, and whether there is room for it."""

from __future__ import annotations

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import DTYPE_BYTES
from renio_pipeline.data.other_tokenizers import ROOM


def payload_token_bytes(config: RunConfig, teacher: str, teacher_hidden_size: int) -> int:
    """Bytes that a teacher sends of a response token, at most. ``teacher_hidden_size``: width of its hidden states."""
    one = config.objective.payload.token_bytes(teacher_hidden_size, DTYPE_BYTES[config.all_teachers[teacher].dtype])
    return one * (ROOM if teacher in config.own_tokenizers else 1)


def top_k_key(config: RunConfig) -> str:
    """Where the user says how many of its likeliest tokens the teacher sends."""
    return "objective.k" if "k" in type(config.objective).model_fields else "objective: top_k of its payload"


def check_payload(config: RunConfig, payload_bytes: int) -> None:
    """Raises ConfigError if a step may take more than ``payload.max_bytes``."""
    if payload_bytes > config.payload.max_bytes:
        factors = "batch_size x max_response_tokens x bytes per token" + (" x teachers of combine" if config.combine else "")
        raise ConfigError(
            f"payload.max_bytes: a step's {config.objective.payload.kind} may take {payload_bytes} bytes ({factors}), and "
            f"payload.max_bytes is {config.payload.max_bytes}; raise it, or lower "
            "batch_size or objective.k"
        )
