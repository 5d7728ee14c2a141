"""What a run with ``teacher.tokenizer: own`` can do."""

from __future__ import annotations

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.schema import Opsd
from renio_pipeline.config.sections import SAMPLED


def check_own_tokenizers(c: RunConfig) -> None:
    """Raises ValueError where a teacher's own tokens are of no use, or something needs the student's."""
    if not c.own_tokenizers:
        return
    key = c.teacher_key(c.own_tokenizers[0], "tokenizer")
    if isinstance(c.method, Opsd):
        raise ValueError(f"{key}: in opsd the teacher is the student itself, and has its tokenizer; leave it out")
    if c.objective.payload != SAMPLED and not c.objective.reads_own_tokens:
        what = {"hidden": "hidden states", "top_k": "likeliest tokens"}[c.objective.payload.kind]
        raise ValueError(
            f"{key}: objective {c.objective.label} compares the student at each token with the teacher's {what} there, and "
            "with own these are of other tokens, at other places; set objective.type=sampled, for which log-probabilities of "
            "the text are enough, or objective.type=uld"
        )
    if c.combine is not None:
        raise ValueError(f"{key}: combine mixes probabilities of the same tokens; leave one of the two out")
    if c.reason_first is not None:
        raise ValueError(f"method.reason_first: writes in the student's tokens, and {key} is own; leave one of the two out")
    if c.data.off_policy.share:
        raise ValueError(f"data.off_policy: its responses are in one tokenizer, and {key} is own; leave one of the two out")


def check_same_tokenizers(config: RunConfig, command: str) -> None:
    """Raises ConfigError for a teacher with its own tokenizer, which cannot go on from the student's tokens."""
    if config.own_tokenizers:
        key = config.teacher_key(config.own_tokenizers[0], "tokenizer")
        raise ConfigError(f"{key}: {command} has teachers go on from the student's tokens, which own ones cannot read")
