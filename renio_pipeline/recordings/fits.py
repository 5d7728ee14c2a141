"""Whether a run may learn from a recording, by the recording's manifest alone: before any model is loaded."""

from __future__ import annotations

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.recordings.manifest import FILE, Manifest


def check_fits(found: Manifest, config: RunConfig, name: str, tokenizer: str, student: str) -> None:
    """Raises ConfigError where a run must not learn from a recording; names the manifest's key and what to change.

    Args:
        name: of the recorded teacher in ``config``.
        tokenizer: the print of the student's.
        student: the student's name, for the message.
    """
    key, payload = config.teacher_key(name, "path"), config.objective.payload
    start = f"{key}: the recording {config.recorded_teachers[name]}"
    if found.tokenizer != tokenizer:
        raise ConfigError(
            f"{start} is in tokens of another tokenizer than that of student {student!r} (tokenizer in {FILE}; it was written "
            f"by {found.student!r}); set student to a model with that tokenizer, or record again with this one"
        )
    if found.temperature != config.temperature:
        raise ConfigError(
            f"{start} has log-probabilities at τ {found.temperature:g} (temperature in {FILE}), and the run's is "
            f"{config.temperature:g}; set temperature={found.temperature:g}, or record again"
        )
    if payload.kind == "top_k" and found.top_k < payload.top_k:
        what = f"the {found.top_k} likeliest tokens" if found.top_k else "log-probabilities of the sampled tokens alone"
        lower = f"objective.k={found.top_k}" if found.top_k else "objective.type=sampled"
        raise ConfigError(
            f"{start} has {what} (top_k in {FILE}), and objective {config.objective.label} needs {payload.top_k}; set "
            f"{lower}, or record again"
        )
    if found.max_response_tokens > config.max_response_tokens:
        raise ConfigError(
            f"{start} has responses of up to {found.max_response_tokens} tokens (max_response_tokens in {FILE}), and the run's "
            f"are of up to {config.max_response_tokens}; set max_response_tokens={found.max_response_tokens}"
        )
    if name not in found.teachers:
        names = ", ".join(repr(each) for each in found.teachers)
        if not name:
            raise ConfigError(
                f"{start} is of teachers with names (teachers in {FILE} has {names}), and `teacher` has none; use `teachers` "
                "with the name of the one whose signals the run is to have"
            )
        if "" in found.teachers:
            raise ConfigError(
                f"{start} is of a single teacher without a name (teachers in {FILE}); use `teacher` in the place of `teachers`"
                f", or record again with teachers.{name}"
            )
        raise ConfigError(
            f"{start} has no teacher {name!r} (teachers in {FILE} has {names}); the name in teachers must be that of the "
            "recording"
        )
    model, recorded = config.all_teachers[name].model, found.teachers[name].model
    if model is not None and model != recorded:
        raise ConfigError(
            f"{config.teacher_key(name, 'model')}: {model!r} given, and {config.recorded_teachers[name]} has the signals of "
            f"{recorded!r} (teachers in {FILE}); leave it out, or record that teacher"
        )
