"""What a driver that has lost its lease still writes: nothing, wherever it was when another one took over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.monitoring.trace import Trace
from renio_pipeline.run_dir import checkpoint_files
from renio_pipeline.run_dir.checkpoint_files import RunState
from renio_pipeline.run_dir.checkpointing import Checkpointer
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.fence import NO_FENCE, Fence, LeaseLostError
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.run_dir.run_log import RunLog
from renio_pipeline.study.results import Results
from renio_pipeline.types import Evaluation, Version
from tests.unit.conftest import make_config

STATE = RunState(step=2, version=Version(1, 2))


@pytest.fixture
def fence(tmp_path: Path) -> Fence:
    path = tmp_path / ".lease" / "1"
    path.parent.mkdir()
    path.write_text('{"token":"mine"}')
    return Fence(str(path), "mine")


def take_over(fence: Fence, how: str = "removed") -> None:
    path = Path(fence.path)
    if how == "removed":
        path.unlink()
    elif how == "another's":
        path.write_text('{"token":"theirs"}')
    else:
        path.unlink()
        path.parent.rmdir()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("how", ["removed", "another's", "folder gone"])
def test_a_lost_lease_is_found_out_and_nothing_is_written(tmp_path: Path, fence: Fence, how: str) -> None:
    path = tmp_path / "metrics.jsonl"
    fence.append(path, b"1\n")
    fence.append(path, b"2\n")
    fence.write(tmp_path / "result.json", b"long text")
    fence.write(tmp_path / "result.json", b"text")
    take_over(fence, how)
    before = contents(tmp_path)
    for write in (fence.append, fence.write):
        for name in ("metrics.jsonl", "result.json", "new"):
            with pytest.raises(LeaseLostError, match=f"^{tmp_path}: another driver"):
                write(tmp_path / name, b"3\n")
    assert contents(tmp_path) == before
    assert (path.read_bytes(), (tmp_path / "result.json").read_bytes()) == (b"1\n2\n", b"text")


def test_a_lease_that_cannot_be_read_is_an_error_of_the_system_and_not_a_lost_one(
    fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        fence.check()


@pytest.mark.parametrize("write", [Fence.append, Fence.write])
def test_what_a_driver_writes_that_is_stopped_after_its_check_goes_to_no_file_that_has_a_name(
    tmp_path: Path, fence: Fence, monkeypatch: pytest.MonkeyPatch, write: Callable[[Fence, Path, bytes], None]
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("1\n2\n")
    check, calls = Fence.check, list[int]()

    def stopped_after(self: Fence) -> None:
        check(self)
        calls.append(1)
        if len(calls) == 2:  # woken when another driver has taken over, and has cut the file back
            take_over(fence)
            checkpoint_files.write_durably(path, "1\n")

    monkeypatch.setattr(Fence, "check", stopped_after)
    write(fence, path, b"3\n")
    assert path.read_text() == "1\n"


@pytest.mark.parametrize("at", [1, 2])
def test_what_latest_names_stays_where_a_driver_is_stopped_while_it_replaces_it(
    tmp_path: Path, fence: Fence, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """``at``: before or after the lease was looked at for the last time."""
    latest, check = tmp_path / "latest", Fence.check
    latest.write_text("step_000002\n")

    def taken_over() -> None:
        take_over(fence)
        checkpoint_files.cut_back(tmp_path, 2)

    def stopped(self: Fence) -> None:
        if at == 1:
            taken_over()
        check(self)
        if at == 2:
            taken_over()

    monkeypatch.setattr(Fence, "check", stopped)
    with pytest.raises((LeaseLostError, FileNotFoundError)):
        checkpoint_files.write_durably(latest, "step_000004\n", fence)
    assert {path.name for path in tmp_path.glob("*l*t*")} == {"latest"}
    assert latest.read_text() == "step_000002\n"


def test_without_a_lease_there_is_nothing_to_check(tmp_path: Path) -> None:
    NO_FENCE.check()
    NO_FENCE.append(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def directory_of(tmp_path: Path, fence: Fence) -> RunDirectory:
    return RunDirectory(make_config(run_dir=str(tmp_path)), fence=fence)


CELL: Any = SimpleNamespace(experiment="x", arm="a", key="k", factors={}, seed=0)
RECORD = {"sample_id": 1, "raw_weight": 1.0, "weight": 1.0, "verdict": None, "token_ids": [5]}
EVALUATION = Evaluation(problems=1, accuracy=1.0, low=0.0, high=1.0, response_tokens=1.0)
WRITES: dict[str, Callable[[RunDirectory], object]] = {
    "samples": lambda d: d.write_samples(2, [RECORD]),
    "an evaluation": lambda d: d.write_evaluation(2, EVALUATION),
    "the result": lambda d: d.write_result({}),
    "a restart epoch": lambda d: d.begin_epoch(STATE),
    "a step's metrics": lambda d: JsonlSink(d.metrics, d.fence).write(2, {"loss": 1.0}),
    "a quarantined sample": lambda d: QuarantineLog(d.path / "samples" / "rejected.jsonl", print, d.fence).add(1, "", "", ""),
    "a checkpoint's beginning": lambda d: checkpoint_files.begin(d.checkpoints, STATE, d.fence),
    "old checkpoints": lambda d: checkpoint_files.prune(d.checkpoints, 1, d.fence),
    "the directory itself": lambda d: directory_of(d.path, d.fence),
    "a trace": lambda d: Trace(d.path / "trace.json", 3, d.fence)._write(),
    "a study's result": lambda d: Results(d.path / "study", d.fence).add(CELL, {}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_everything_that_writes_into_the_directory_checks(
    tmp_path: Path, fence: Fence, write: Callable[[RunDirectory], object]
) -> None:
    directory = directory_of(tmp_path, fence)
    for step in (1, 3):
        (directory.path / "samples" / f"step_{step:06d}.jsonl").write_text("{}\n")
        (directory.checkpoints / f"step_{step:06d}").mkdir()
        complete = RunState(step=step, version=Version(0, step))
        checkpoint_files.commit(checkpoint_files.begin(directory.checkpoints, complete), complete)
    directory.metrics.write_text('{"step": 1}\n{"step": 3}\n')
    take_over(fence)
    before = contents(tmp_path)
    with pytest.raises(LeaseLostError):
        write(directory)
    assert contents(tmp_path) == before


def test_the_log_is_left_alone_also_by_the_error_that_says_so(tmp_path: Path, fence: Fence) -> None:
    log = RunLog(tmp_path / "log.txt", fence)

    def drive() -> None:
        with log:
            log.note("first")
            take_over(fence)
            log.note("second")
            fence.check()

    with pytest.raises(LeaseLostError):
        drive()
    assert "first" in log.path.read_text()
    assert "second" not in log.path.read_text()
    assert "Traceback" not in log.path.read_text()


class Slow:
    """A trainer whose ranks are still writing when another driver takes over."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    async def save(self, folder: str) -> None:
        Path(folder, "weights").write_text("old")

    async def written(self) -> None:
        take_over(self._fence)


def test_a_checkpoint_that_is_being_written_does_not_count_and_leaves_the_other_drivers_alone(
    tmp_path: Path, fence: Fence
) -> None:
    theirs = checkpoint_files.begin(tmp_path, STATE)
    (theirs / "weights").write_text("new")
    theirs = checkpoint_files.commit(theirs, STATE)

    async def go() -> None:
        checkpointer = Checkpointer(tmp_path, Slow(fence), keep=1, note=print, fence=fence)
        await checkpointer.save(RunState(step=2, version=Version(0, 2)))
        with pytest.raises(LeaseLostError):
            await checkpointer.finish()

    asyncio.run(go())
    assert (theirs / "weights").read_text() == "new"
    found = checkpoint_files.newest(tmp_path)
    assert found is not None
    assert found[1] == STATE


def test_a_checkpoint_whose_driver_is_stopped_after_the_check_replaces_no_complete_one(tmp_path: Path) -> None:
    ours, other = RunState(step=2, version=Version(0, 2)), RunState(step=2, version=Version(1, 2))
    partial = checkpoint_files.begin(tmp_path, ours)
    theirs = checkpoint_files.begin(tmp_path, other)
    (theirs / "weights").write_text("new")
    checkpoint_files.commit(theirs, other)
    with pytest.raises(OSError, match=os.strerror(39)):
        checkpoint_files.commit(partial, ours)
    found = checkpoint_files.newest(tmp_path)
    assert found is not None
    assert found[1] == other
