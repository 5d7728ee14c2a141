"""A ``~`` in any path of the configuration or the command line stands for the home folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from renio_pipeline import cli
from renio_pipeline.config import ConfigError, RunConfig, load, parse
from renio_pipeline.config.describe import describe
from renio_pipeline.config.paths import expanded
from renio_pipeline.evaluation.models import named
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.tasks import make_task
from tests.unit.conftest import make_config, values

OWN = """
from renio_pipeline.weightings.uniform import Uniform

class Mine(Uniform):
    type: str = "custom"

class Asks:
    def messages(self, row): return [{"role": "user", "content": row.problem}]
    def verify(self, row, text): return None
"""
# Every key that is a path: the words of its description say so.
PATHS = {
    "run_dir": "~/r", "student": "~/m", "task": "~/own.py:Asks", "metrics_discovery": "~/d",
    "data.path": "~/a.jsonl", "data.held_out_path": "~/b.jsonl", "evaluate.markers": "~/markers.txt",
    "teacher.model": "~/t", "teacher.adapter": "~/l", "teacher.path": "~/scores",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    return tmp_path


def nested(key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def value_of(config: RunConfig, key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("key", PATHS)
def test_a_home_folder_is_expanded_in(key: str, home: Path) -> None:
    sections = {"metrics_port": 0, **nested(key, PATHS[key])}
    if key == "teacher.adapter":
        sections["teacher"]["model"] = "embedded:teacher"
    if key == "teacher.path":
        sections["teacher"]["type"] = "recorded"
    config = make_config(**sections)
    assert value_of(config, key) == PATHS[key].replace("~", str(home))


def test_no_key_that_says_it_is_a_path_is_left_out() -> None:
    words = ("folder", "director", "file", "path.py")
    told = {key.name for section in describe(RunConfig) for key in section.keys if any(w in key.text.lower() for w in words)}
    no_paths = {"name", "data.subset", "data.split", "data.held_out_split", "data.fields", "wandb.mode"}
    no_paths |= {f"data.sources.N.{key}" for key in ("name", "subset", "split", "held_out_split", "fields")}
    own = {"weighting.path", "objective.path", "data.sources.N.path", "data.sources.N.held_out_path"}  # below
    assert told - no_paths - own - {"teachers.NAME.model", "teachers.NAME.adapter", "teachers.NAME.path", *PATHS} == set()


def test_sources_are_found_at_home(home: Path) -> None:
    source = {"path": "~/a.jsonl", "held_out_path": "~/b.jsonl", "task": "~/own.py:Asks"}
    (found,) = make_config(data={"sources": [source]}).data.sources or ()
    assert (found.path, found.held_out_path, found.task) == tuple(
        str(home / name) for name in ("a.jsonl", "b.jsonl", "own.py:Asks")
    )


def test_several_teachers_and_classes_of_ones_own_are_found_at_home(home: Path) -> None:
    several = values(
        teachers={"a": {"model": "~/a"}, "b": {"model": "~/b"}}, weighting={"type": "custom", "path": "~/own.py:Mine"}
    )
    del several["teacher"]
    config = parse(several)
    assert [config.teacher_model(name) for name in ("a", "b")] == [f"{home}/a", f"{home}/b"]
    assert config.weighting.label == "Mine"
    assert make_task(make_config(task="~/own.py:Asks").task).name == "Asks"


def test_a_run_directory_at_home_is_made_there_and_recorded_in_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    config = make_config(run_dir="~/runs/first")
    RunDirectory(config)
    assert (home / "runs/first/config.yaml").is_file()
    assert not (home / "~").exists()
    assert load("~/runs/first/config.yaml") == config


@pytest.mark.parametrize("written", ["~nobody-of-this-name", "~nobody-of-this-name/x"])
def test_a_home_folder_that_is_not_there_is_refused_with_its_key(written: str) -> None:
    with pytest.raises(ConfigError, match=r"run_dir: '~nobody-of-this-name.*there is no home folder ~nobody-of-this-name"):
        make_config(run_dir=written)
    with pytest.raises(ConfigError, match=r"weighting\.path: '~nobody"):
        make_config(weighting={"type": "custom", "path": f"{written}.py:Mine"})


def test_other_tildes_stay() -> None:
    assert [expanded(path) for path in ("./~", "a~b", "/x/~/y", "owner/name", "")] == ["./~", "a~b", "/x/~/y", "owner/name", ""]


def test_options_are_expanded_too(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert named(["m=~/model"], "--model") == {"m": f"{home}/model"}
    for arguments in (["report", "~/run"], ["eval", "--compare", "~/run", "~/run"], ["plan", "--config=~/run"]):
        assert cli.main(arguments) == 2
        assert f"{home}/run" in capsys.readouterr().err
