"""``renio train`` around a run whose stages are fakes: what its log has, and what a failure prints."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from actors import launch, run_checks
from actors.cluster import connection, head_watch
from actors.control import mailbox
from renio_pipeline import cli
from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.fence import Fence
from renio_pipeline.run_dir.holders import this_place, this_process
from tests.unit.conftest import DEMO
from tests.unit.data.test_template_clock import Late
from tests.unit.loop.test_step import config_of, prepared, stages_of

__all__ = ["prepared"]  # a fixture


@pytest.fixture
def train(tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command for so many steps; a teacher raises, or another driver takes over, in the step that is named."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    fails, lost = list[int](), list[int]()

    @contextmanager
    def connect(address: str | None) -> Iterator[connection.Cluster]:
        yield connection.Cluster(own=True, host="127.0.0.1", head="127.0.0.1:6379")

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
    monkeypatch.setattr(run_checks, "prepare_locally", lambda config, clock: prepared)
    monkeypatch.setattr(run_checks, "check", lambda config, found, clock: found)
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


def test_a_lost_head_is_said_on_the_terminal_and_in_the_log_while_the_event_loop_is_blocked(
    train: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_watch, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(head_watch, "_listens", lambda address: False)
    log, started = tmp_path / "run" / "log.txt", launch.stages

    @asynccontextmanager
    async def blocked(*arguments: Any) -> AsyncIterator[Any]:
        async with started(*arguments) as made:
            end = time.monotonic() + 30
            while "is lost" not in log.read_text():
                assert time.monotonic() < end
                time.sleep(0.01)
            yield made

    monkeypatch.setattr(launch, "stages", blocked)
    assert train(1) == 0
    line = "the head of the Ray cluster, 127.0.0.1:6379, is lost: unless it comes back within a minute, Ray ends this "
    assert line in capfd.readouterr().out
    assert log.read_text().count(line) == 1


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
    def refuse(config: Any, clock: Any) -> None:
        raise ConfigError("student: no such model")

    monkeypatch.setattr(run_checks, "prepare_locally", refuse)
    assert train(1, *options) == 2
    assert not (tmp_path / "run").exists()


DATED = "{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def on_a_file(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command reads its rows from a file, and its student's chat template writes the time. Returns the file."""
    monkeypatch.setattr(run_checks, "prepare_locally", lambda config, clock: prepare(config, clock=clock))
    student = tmp_path / "student"
    shutil.copytree(DEMO / "student", student)
    for path in student.glob("chat_template*"):
        path.unlink()
    settings = json.loads((student / "tokenizer_config.json").read_text())
    (student / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": DATED}))
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, range(8))
    given = OmegaConf.load(tmp_path / "run.yaml")
    given.data.path, given.student, given.evaluate.problems = str(rows), str(student), 0
    OmegaConf.save(given, tmp_path / "run.yaml")
    return rows


def write_rows(path: Path, numbers: Iterable[int]) -> None:
    lines = [{"id": f"r{n}", "problem": f"{n}+1", "answer": str(n + 1), "solution": f"{n}+1={n + 1}#{n + 1}"} for n in numbers]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn(run: Path) -> dict[int, list[str]]:
    """The ids of the rows of each step."""
    files = {int(path.stem.removeprefix("step_")): path for path in (run / "samples").glob("step_*.jsonl")}
    return {step: [json.loads(line)["row"] for line in path.read_text().splitlines()] for step, path in sorted(files.items())}


def test_a_resume_on_other_rows_is_refused_by_the_file_and_changes_nothing(
    train: Any, on_a_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(1) == 0
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    write_rows(on_a_file, [*range(6), 8, 9])
    assert train(3, "--resume") == 2
    error = capfd.readouterr().err
    assert f"  data.path: {on_a_file}: 2 rows added (lines 7, 8), 2 rows removed (lines 7, 8 before); it had 8 rows" in error
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before
    write_rows(on_a_file, range(8))
    assert train(2, "--resume") == 0


def test_a_resume_that_may_go_on_draws_no_row_twice_in_the_pass_and_the_new_ones_in_it(
    train: Any, on_a_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Eight rows, of which a step draws six; then one is gone, and five are new."""
    run = tmp_path / "run"
    assert train(1) == 0
    first = drawn(run)[1]
    gone, new = sorted({f"r{n}" for n in range(8)} - set(first))[0], range(20, 25)
    write_rows(on_a_file, [*new, *(n for n in range(8) if f"r{n}" != gone)])
    assert train(2, "data.changed=continue", "--resume") == 0
    second = drawn(run)[2]
    left = {f"r{n}" for n in (*new, *range(8))} - set(first) - {gone}
    assert (len(left), len(second)) == (6, 6)
    assert set(second) == left
    assert "pass 1 is completed with the 6 rows that it has not drawn yet" in (run / "log.txt").read_text()
    assert train(3, "--resume") == 0, "the data is what it was at the last resume"
    assert len(set(drawn(run)[3])) == 6


def test_a_chat_template_that_writes_the_time_asks_the_same_prompts_after_a_resume(
    train: Any, on_a_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert train(1) == 0
    began = json.loads((run / "data.json").read_text())["template_clock"]
    log = (run / "log.txt").read_text()
    assert f"reads the time: for all prompts it is {began.replace('T', ' ')}, also after a resume" in log
    told: list[str | None] = []

    def prepare_later(config: Any, clock: str | None) -> Prepared:
        told.append(clock)
        return prepare(config, clock=clock)

    monkeypatch.setattr(run_checks, "prepare_locally", prepare_later)
    monkeypatch.setattr("renio_pipeline.data.template_clock.datetime", Late)
    assert train(2, "--resume") == 0, "prompts that are another day's are refused, as other data is"
    assert told == [began]
    assert json.loads((run / "data.json").read_text())["template_clock"] == began
