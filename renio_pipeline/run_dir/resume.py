"""Whether and where a run resumes: its directory compared with the configuration that is given now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import name_of
from renio_pipeline.config.own.own_file import OwnFile
from renio_pipeline.config.schema import MixedSource
from renio_pipeline.run_dir import checkpoint_files
from renio_pipeline.run_dir.checkpoint_files import THE_START, ResumePoint
from renio_pipeline.run_dir.json_lines import complete_lines
from renio_pipeline.run_dir.recorded_config import recorded_config
from renio_pipeline.types import Version

# Keys that may change at a resume: length, hardware and observation. All others would change the mathematics.
FREE = (
    "name", "run_dir", "steps", "deterministic", "pools", "checkpoint", "samples", "evaluate", "metrics_port", "payload",
    "sync", "faults", "placement", "metrics_discovery", "sinks", "wandb", "mlflow", "trackio", "swanlab", "trace",
    "diagnostics", "data.changed",
    "generator.engine", "generator.tensor_parallel", "generator.separate_process",
    "trainer.micro_batch_tokens", "trainer.gradient_checkpointing", "trainer.offload",
)  # fmt: skip
# What data.changed=continue frees: where the data is. Its content is compared by ``renio_pipeline.data.settling``.
FREE_WITH_CHANGED_DATA = (
    "data.path", "data.subset", "data.split", "data.problems", "data.held_out_path", "data.held_out_split", "data.fields",
    "data.preset", "data.only",
)  # fmt: skip
_OF_A_SOURCE = ("task", "task_options", "prompts", "teacher")  # what stays of a source that was there and is
FREE_OF_TEACHERS = ("engine", "tensor_parallel", "separate_process", "attention", "max_batch_tokens")


def resume_point(config: RunConfig) -> ResumePoint:
    """Where ``config``'s run resumes: its start, where there is no complete checkpoint or no directory.

    Raises:
        ConfigError: the directory is another run's, or the run has completed all its steps.
    """
    path = config.directory
    if not (path / "config.yaml").is_file():
        if path.exists() and any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise ConfigError(
                f"{config.directory_key}: {path} is not a run's directory (it has no config.yaml), so nothing there can be "
                "resumed"
            )
        return ResumePoint()
    check_same_run(recorded_config(path), config)
    point = next_point(path)
    done = point.state.step
    if done > config.steps or (done == config.steps and (path / "result.json").is_file()):
        raise ConfigError(f"steps: {config.steps} is no more than the {done} that the run in {path} has done; raise steps")
    return point


def next_point(path: Path) -> ResumePoint:
    """The newest complete checkpoint of a run's directory, or the start, in the next restart epoch."""
    folder, state = checkpoint_files.newest(path / "checkpoints") or (None, THE_START)
    earlier = [int(line["incarnation"]) for line in complete_lines(path / "resumes.jsonl")]
    incarnation = max([state.version.incarnation, *earlier]) + 1
    state = replace(state, version=Version(incarnation, state.version.number))
    return ResumePoint(state=state, folder=folder.absolute() if folder else None)


def check_same_run(was: RunConfig, now: RunConfig) -> None:
    """Raises ConfigError, one line a key, for changes of the mathematics within a run."""
    old, new = _values(was), _values(now)
    with suppress(ConfigError):  # an earlier version kept no copies of users' files
        before, after = _own_files(was), _own_files(now)
        for key, file in before.items():
            given = after.get(key)
            if given is not None and (given.place, given.cls) == (file.place, file.cls):
                new[key] = old[key]  # the same file by another path, or from another folder
    free = (*FREE, *(FREE_WITH_CHANGED_DATA if now.data.changed == "continue" else ()))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key) and not _free(key, free)]
    if now.data.changed == "continue":
        changed = [key for key in changed if key not in _free_of_sources(was, now)]
    if changed:
        lines = [f"  {key}: the run has {old.get(key)!r}, given is {new.get(key)!r}" for key in changed]
        raise ConfigError(
            f"--resume: {now.directory} was made with another configuration:\n" + "\n".join(lines) + "\n"
            "give the run's own values (its config.yaml has them), or choose another run_dir for a new run"
        )


def _values(config: RunConfig) -> dict[str, Any]:
    """The configuration's keys; those of a source of several under its name, whose place in the list means nothing."""
    values = config.model_dump(mode="json")
    sources = values["data"].pop("sources", None) or []
    named = zip(config.data.sources or (), sources, strict=True)
    of_sources = {_key(name_of(section), key): value for section, given in named for key, value in given.items()}
    return dict(_leaves(values)) | of_sources


def _own_files(config: RunConfig) -> dict[str, OwnFile]:
    """The users' files by the keys of ``_values``."""
    tasks = {f"data.sources.{i}.task": _key(name_of(each), "task") for i, each in enumerate(config.data.sources or ())}
    return {tasks.get(key, key): file for key, file in config.own_files.items()}


def _free_of_sources(was: RunConfig, now: RunConfig) -> set[str]:
    """The keys of sources that may change with their data: all of new ones and of those that are gone."""
    before, after = ({name_of(section) for section in config.data.sources or ()} for config in (was, now))
    return {
        _key(name, field)
        for name in before | after
        for field in MixedSource.model_fields
        if field not in _OF_A_SOURCE or name not in before & after
    }


def _key(source: str, field: str) -> str:
    return f"data.sources.{source}.{field}"


def _free(key: str, free: Sequence[str]) -> bool:
    parts = key.split(".")
    if parts[0] in ("teacher", "teachers"):
        return parts[1 if parts[0] == "teacher" else 2 :][:1] in ([name] for name in FREE_OF_TEACHERS)
    return any(parts[: len(name)] == name for name in (name.split(".") for name in free))


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
