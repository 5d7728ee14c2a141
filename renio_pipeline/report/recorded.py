"""Reads run directories. A run that is still being written, or was interrupted, is read as far as it got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.metrics.registry import source_quantity
from renio_pipeline.probe.results import Report, newest, read_report
from renio_pipeline.run_dir.batches import FILE as BATCHES
from renio_pipeline.run_dir.batches import Batch, read_batches, step_files
from renio_pipeline.run_dir.json_lines import complete_lines
from renio_pipeline.run_dir.recorded_config import recorded_config


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    path: Path
    label: str  # unique among the runs of a report
    config: RunConfig
    metrics: list[dict[str, Any]]  # a line a step, at least one
    evaluations: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    resumes: int
    ended: bool
    batches: dict[int, Batch]  # by step
    sample_files: dict[int, Path]  # of the steps whose samples are still there
    probe: Report | None = None  # the newest probe in its directory

    def samples(self, step: int) -> list[dict[str, Any]]:
        """See ``renio_pipeline.metrics.step_metrics.sample_records``."""
        return _lines(self.sample_files[step])


def read_runs(folders: Sequence[Path]) -> list[RecordedRun]:
    """Read runs. Raises ConfigError for a folder that is not a run directory, has no step, or has a damaged file."""
    resolved = [folder.resolve() for folder in folders]
    twice = [str(path) for path, count in Counter(resolved).items() if count > 1]
    if twice:
        raise ConfigError(f"RUN: {twice[0]} is given twice; give each run once")
    names = Counter(path.name for path in resolved)
    labels = [path.name if names[path.name] == 1 else str(given) for path, given in zip(resolved, folders, strict=True)]
    return [_read(folder, label) for folder, label in zip(folders, labels, strict=True)]


def _read(path: Path, label: str) -> RecordedRun:
    if not path.is_dir():
        raise ConfigError(f"RUN: {path} {'is a file' if path.exists() else 'does not exist'}; give a run directory")
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"RUN: {path} is not a run directory: it has no config.yaml")
    metrics = _lines(path / "metrics.jsonl")
    if not metrics:
        raise ConfigError(f"RUN: {path / 'metrics.jsonl'} has no step yet; wait for the run's first step")
    return RecordedRun(
        path=path,
        label=label,
        config=recorded_config(path),
        metrics=metrics,
        evaluations=_lines(path / "evaluations.jsonl"),
        rejected=_lines(path / "samples" / "rejected.jsonl"),
        resumes=len(_lines(path / "resumes.jsonl")),
        ended=(path / "result.json").is_file(),
        batches=_batches(path),
        sample_files=step_files(path),
        probe=read_report(probe) if (probe := newest(path)) else None,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(_checked(path, complete_lines(path)))


def _batches(path: Path) -> dict[int, Batch]:
    try:
        return read_batches(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"RUN: {path / BATCHES} or a file of samples/ is damaged: {error}") from None


def _checked(path: Path, lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    count = 0
    try:
        for line in lines:
            count += 1
            yield line
    except ValueError as error:
        raise ConfigError(f"RUN: {path} is damaged after line {count}: {error}") from None


def sources_of(runs: Sequence[RecordedRun]) -> list[str]:
    """The names of all runs' ``data.sources``."""
    names = {name for run in runs for line in run.metrics for name in line}
    return sorted({found[0] for name in names if (found := source_quantity(name)) is not None})
