"""``renio train`` around a run whose stages are fakes: what its log has, and what a failure prints."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from actors import launch, run_checks
from actors.cluster import connection
from actors.control import mailbox
from renio_pipeline import cli
from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.fence import Fence
from renio_pipeline.run_dir.holders import this_place, this_process
from tests.unit.loop.test_step import config_of, prepared, stages_of

__all__ = ["prepared"]  # a fixture
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def train(tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command for so many steps; a teacher raises, or another driver takes over, in the step that is named."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    fails, lost = list[int](), list[int]()

    @contextmanager
    def connect(address: str | None) -> Iterator[connection.Cluster]:
        yield connection.Cluster(own=True, host="127.0.0.1")

    @asynccontextmanager
    async def stages(config: Any, prepared: Prepared, point: Any, note: Any, fence: Fence) -> AsyncIterator[Any]:
        made = stages_of(prepared, config)
        score = made.teachers.score

        async def failing(rollouts: Any, step: int) -> Any:
            if step in fails:
                raise KeyError("no such teacher")
            if step in lost:
                Path(fence.path).unlink()
            return await score(rollouts, step)

        monkeypatch.setattr(made.teachers, "score", failing)
        note("the engines are there")
        yield made

    async def serve(control: Any, handle: Any) -> None:
        """Nobody asks anything."""

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(launch, "stages", stages)
    monkeypatch.setattr(run_checks, "prepare_locally", lambda config: prepared)
    monkeypatch.setattr(run_checks, "check", lambda config, found: found)
    monkeypatch.setattr(mailbox, "claim", lambda *arguments: None)
    monkeypatch.setattr(mailbox, "serve", serve)
    config = config_of(run_dir=str(tmp_path / "run"), evaluate={"problems": 0}, checkpoint={"every": 1}, name="logged")
    OmegaConf.save(OmegaConf.create(config.model_dump(mode="json")), tmp_path / "run.yaml")

    def command(steps: int, *options: str, fails_in: int = 0, lost_in: int = 0) -> int:
        fails[:], lost[:] = [fails_in], [lost_in]
        return cli.main(["train", "--config", str(tmp_path / "run.yaml"), f"steps={steps}", *options])

    return command


def test_a_failure_prints_its_traceback_and_the_log_which_a_resume_continues(
    train: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run" / "log.txt"
    assert train(3, fails_in=2) == 1
    error = capfd.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert error.endswith(f"error: in step 2: KeyError: 'no such teacher'\nlog: {log}\n")
    first = log.read_text()
    assert "run logged in" in first
    assert "the engines are there" in first
    assert "the run failed\n    Traceback (most recent call last)" in first
    assert "KeyError: 'no such teacher'" in first

    assert train(3, "--resume") == 0
    text = log.read_text()
    assert text.startswith(first)
    assert "resuming after step 1: starting the engines" in text[len(first) :]
    assert "Traceback" not in text[len(first) :]
    assert capfd.readouterr().err == ""


def test_a_driver_that_finds_another_in_its_place_says_so_in_one_line_and_leaves_every_file_alone(
    train: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(3, lost_in=2) == 1
    assert capfd.readouterr().err == (
        f"error: {run}: another driver has taken this run's directory over, or its lease was removed; this one ends, and "
        "writes nothing more\n"
    )
    assert [line["step"] for line in read_jsonl(run / "metrics.jsonl")] == [1]
    assert [path.name for path in (run / "samples").iterdir()] == ["step_000001.jsonl"]
    assert not (run / "result.json").exists()
    assert "Lease" not in (run / "log.txt").read_text()


def test_the_lease_is_gone_at_the_end_and_what_was_taken_over_is_in_the_log(
    train: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(1) == 0
    assert not list(run.glob(".lease*"))
    dead = replace(this_process(this_place(), 60), started=1)
    (run / ".lease").mkdir()
    (run / ".lease" / "4").write_bytes(dead.encoded())
    capfd.readouterr()
    assert train(2, "--resume") == 0
    said = (
        f"{run} is held by process {os.getpid()} on {this_place().host} ({dead.times} by its own clock); that process has ended"
    )
    assert said in capfd.readouterr().err
    assert said in (run / "log.txt").read_text()
    assert not list(run.glob(".lease*"))


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_what_is_refused_leaves_no_directory(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    def refuse(config: Any) -> None:
        raise ConfigError("student: no such model")

    monkeypatch.setattr(run_checks, "prepare_locally", refuse)
    assert train(1, *options) == 2
    assert not (tmp_path / "run").exists()
