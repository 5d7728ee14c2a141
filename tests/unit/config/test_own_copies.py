"""The copies that a run keeps of users' files: a run is read and resumed when these are gone, moved or changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError, RunConfig, load, load_to_resume
from renio_pipeline.config.own import own_copies
from renio_pipeline.config.own.own_file import OwnFile
from renio_pipeline.config.own.own_modules import Module
from renio_pipeline.config.yaml_text import document
from renio_pipeline.run_dir.checkpoint_files import RunState
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.recorded_config import recorded_config
from renio_pipeline.run_dir.resume import resume_point
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row, Version
from tests.unit.conftest import values

TASK = """
from helper import WORD
class Mine:
    def messages(self, row):
        return [{"role": "user", "content": WORD}]
    def verify(self, row, text):
        return None
"""
WEIGHTING = """
import numpy as np
from helper import WORD
from renio_pipeline.weightings import ScoredBatch, State, Weighting, Weights

class Mine(Weighting):
    word: str = WORD
    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        return Weights(weights=np.ones(len(batch.verdicts)))
"""
KEYS = {"task": "tasks/mine.py:Mine", "weighting": {"type": "custom", "path": "weights.py:Mine"}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration whose task and weighting are users' files, each with a module beside it."""
    folder = tmp_path / "project"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks/mine.py").write_text(TASK)
    (folder / "tasks/helper.py").write_text("WORD = 'first'\n")
    (folder / "weights.py").write_text(WEIGHTING)
    (folder / "helper.py").write_text("WORD = 'heavy'\n")
    (folder / "run.yaml").write_text(document(values(**KEYS, run_dir=str(tmp_path / "run"))))
    monkeypatch.chdir(folder)
    return folder


def started(tmp_path: Path) -> Path:
    RunDirectory(load("run.yaml"))
    return tmp_path / "run"


def word(config: RunConfig) -> str:
    return make_task(config.task_source).messages(Row(id="1", problem="?"))[0]["content"]


def notes(config: RunConfig) -> list[str]:
    return list(own_copies.changes(config.directory, config.own_files))


def test_a_run_keeps_the_source_of_users_files_and_of_the_modules_beside_them(project: Path, tmp_path: Path) -> None:
    run = started(tmp_path)
    files = sorted(str(path.relative_to(run / "own/000000")) for path in (run / "own/000000").rglob("*.py"))
    assert files == ["task/helper.py", "task/mine.py", "weighting.path/helper.py", "weighting.path/weights.py"]
    assert (run / "own/000000/task/mine.py").read_text() == TASK


def test_a_run_without_users_files_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(document(values(run_dir=str(tmp_path / "run"))))
    RunDirectory(load(tmp_path / "run.yaml"))
    assert not (tmp_path / "run/own").exists()


def test_a_run_is_read_with_the_code_that_it_executed(project: Path, tmp_path: Path) -> None:
    run = started(tmp_path)
    (project / "tasks/helper.py").write_text("WORD = 'second'\n")
    (project / "weights.py").write_text("class Mine: pass\n")
    assert word(recorded_config(run)) == "first"
    assert recorded_config(run).weighting.word == "heavy"  # type: ignore[attr-defined]
    shutil.rmtree(project)
    assert word(recorded_config(run)) == "first"


def test_the_configuration_of_a_run_is_loaded_from_anywhere_when_its_files_are_gone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert word(load(run / "config.yaml")) == "first", "found where the run began"
    shutil.rmtree(project)
    config = load(run / "config.yaml", ["steps=3"])
    assert word(config) == "first"
    assert resume_point(config).state.version == Version(1, 0)
    assert [note.partition(" is not at ")[0] for note in notes(config)] == ["task: tasks/mine.py", "weighting.path: weights.py"]
    assert all(note.endswith(f"; the run's own copy in {run / 'own'} is used") for note in notes(config))


def test_a_relative_path_in_a_resumed_run_is_that_of_its_record(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(tmp_path)
    other = tmp_path / "other"
    (other / "tasks").mkdir(parents=True)
    (other / "tasks/mine.py").write_text(TASK)
    (other / "tasks/helper.py").write_text("WORD = 'of another project'\n")
    monkeypatch.chdir(other)
    with pytest.raises(ConfigError, match=r"weighting\.path: weights\.py is not a file"):
        load(project / "run.yaml")
    resumed = load_to_resume(project / "run.yaml")
    assert word(resumed) == "first"
    assert resume_point(resumed).state.version == Version(1, 0)
    assert notes(resumed) == []


@pytest.mark.parametrize("key", ["run_dir", "name"])
def test_a_resumed_run_is_found_by_its_directory_or_its_name(
    key: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = {"run_dir": "here"} if key == "run_dir" else {"name": "mine"}
    (project / "run.yaml").write_text(document(values(**KEYS, **directory)))
    RunDirectory(load("run.yaml"))
    (project / "weights.py").unlink()
    assert load_to_resume("run.yaml").weighting.word == "heavy"  # type: ignore[attr-defined]


def test_changed_code_is_used_and_said_and_the_earlier_copies_stay(project: Path, tmp_path: Path) -> None:
    run = started(tmp_path)
    (project / "tasks/helper.py").write_text("WORD = 'second'\n")
    resumed = load_to_resume("run.yaml")
    assert word(resumed) == "second"
    (note,) = notes(resumed)
    assert note.startswith("task: helper.py changed since the run last started; the steps from here on use the changed code")
    RunDirectory(resumed, replace(RunState(), version=Version(1, 0)))
    assert (run / "own/000000/task/helper.py").read_text() == "WORD = 'first'\n"
    assert (run / "own/000001/task/helper.py").read_text() == "WORD = 'second'\n"
    assert word(recorded_config(run)) == "second"
    assert notes(load_to_resume("run.yaml")) == []


def test_unchanged_code_is_copied_once(project: Path, tmp_path: Path) -> None:
    run = started(tmp_path)
    RunDirectory(load_to_resume("run.yaml"), replace(RunState(), version=Version(1, 0)))
    assert [path.name for path in (run / "own").iterdir()] == ["000000"]


def test_the_same_file_by_another_path_is_the_same_run_and_another_class_is_not(project: Path, tmp_path: Path) -> None:
    started(tmp_path)
    resume_point(load_to_resume("run.yaml", [f"task={project / 'tasks/mine.py'}:Mine"]))
    (project / "tasks/other.py").write_text(TASK)
    with pytest.raises(ConfigError, match=r"task: the run has 'tasks/mine\.py:Mine', given is 'tasks/other\.py:Mine'"):
        resume_point(load_to_resume("run.yaml", ["task=tasks/other.py:Mine"]))


def test_a_run_of_an_earlier_version_without_copies_is_read_from_the_files(project: Path, tmp_path: Path) -> None:
    run = started(tmp_path)
    shutil.rmtree(run / "own")
    assert word(recorded_config(run)) == "first"
    assert resume_point(load_to_resume("run.yaml")).state.version == Version(1, 0)
    (project / "tasks/mine.py").unlink()
    with pytest.raises(ConfigError, match=r"task: tasks/mine\.py is not a file"):
        word(recorded_config(run))


def test_copies_that_were_not_finished_do_not_count_and_broken_ones_are_said(project: Path, tmp_path: Path) -> None:
    run = started(tmp_path)
    (run / "own/000001/task").mkdir(parents=True)
    (run / "own/000001/task/mine.py").write_text("half")
    assert word(recorded_config(run)) == "first"
    index = run / "own/000000/files.json"
    for text in ("{", "[]", json.dumps({"task": {}})):
        index.write_text(text)
        with pytest.raises(ConfigError, match=r"files\.json: the run's copies of own files cannot be read"):
            recorded_config(run)


def test_users_files_are_read_once_for_each_configuration(project: Path) -> None:
    config = load("run.yaml")
    first = config.task_source
    (project / "tasks/helper.py").write_text("WORD = 'second'\n")
    assert config.task_source is first
    assert config.model_copy(update={"run_dir": "elsewhere"}).task_source is first
    assert yaml.safe_load(document(config.model_dump(mode="json")))["task"] == "tasks/mine.py:Mine"
    assert config == load("run.yaml"), "where files are looked for is no part of a configuration"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(texts, texts, st.sampled_from(["a.py", "./a.py", "sub/ü.py"]))
@pytest.mark.slow
def test_any_source_is_kept_as_it_is(tmp_path_factory: Any, source: str, other: str, path: str) -> None:
    run = tmp_path_factory.mktemp("run")
    modules = (Module("b", "b.py", other), Module("c.d", "c/d.py", source))
    files = {"task": OwnFile(path, "Mine", source, f"/somewhere/{path}", modules)}
    own_copies.keep(run, files, 3, lambda file, data: file.write_bytes(data) and None)
    assert own_copies.copies(run) == files
