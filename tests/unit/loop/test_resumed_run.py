"""The run around the steps, when it goes on from a checkpoint and when it is asked to end; with stages that are fakes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import JsonlSink, read_jsonl
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.checkpoint_files import THE_START, RunState, newest
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.resume import resume_point
from renio_pipeline.types import TrainBatch, Version
from tests.fakes.stages import BATCH, Notes, config_of, prepared, stages_of

__all__ = ["prepared"]  # a fixture
CHANGES: dict[str, Any] = {"steps": 5, "checkpoint": {"every": 2}, "evaluate": {"problems": 5, "every": 1}}


def run_of(folder: Path, prepared: Prepared, state: RunState = THE_START) -> Run:
    config = config_of(run_dir=str(folder), **CHANGES)
    directory = RunDirectory(config, state)
    return Run(
        config=config,
        prepared=prepared,
        stages=stages_of(prepared, config),
        directory=directory,
        progress=Notes(),
        sinks=[JsonlSink(directory.metrics)],
        start=state,
    )


def fail_in(run: Run, step: int) -> None:
    train = run.stages.trainers.train

    async def failing(batch: TrainBatch) -> Any:
        if batch.step == step:
            raise RuntimeError("out of memory")
        return await train(batch)

    run.stages.trainers.train = failing  # type: ignore[method-assign]


def without_times(path: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "idle/", "memory/"))} for line in read_jsonl(path)]


def test_a_run_that_failed_goes_on_from_its_checkpoint_as_if_it_had_not(tmp_path: Path, prepared: Prepared) -> None:
    whole = run_of(tmp_path / "whole", prepared)
    expected = asyncio.run(whole.run())
    broken = run_of(tmp_path / "run", prepared)
    fail_in(broken, 4)
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(broken.run())
    point = resume_point(broken.config)
    assert point.state == RunState(step=2, samples_drawn=2 * BATCH, version=Version(1, 2), world_size=1, zero_stage=2)
    again = run_of(tmp_path / "run", prepared, point.state)
    found = asyncio.run(again.run())

    assert again.stages.trainers.versions == [Version(1, n) for n in (2, 3, 4, 5)]  # the first before any step
    assert [batch.step for batch in again.stages.trainers.batches] == [3, 4, 5]
    assert again.progress.evaluations == [3, 4, 5]
    assert without_times(again.directory.metrics) == without_times(whole.directory.metrics)
    assert found["evaluations"] == expected["evaluations"]
    assert found["auroc"] == expected["auroc"]
    assert found["first_step"]["loss"] == expected["first_step"]["loss"]
    assert sorted(p.name for p in (again.directory.path / "samples").iterdir()) == [f"step_00000{i}.jsonl" for i in range(1, 6)]


def test_a_run_asked_to_end_finishes_the_step_checkpoints_it_and_exits_with_143(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path / "run", prepared)
    train = run.stages.trainers.train

    async def asked(batch: TrainBatch) -> Any:
        run.stop.requested = batch.step == 3
        return await train(batch)

    run.stages.trainers.train = asked  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as caught:
        asyncio.run(run.run())
    assert caught.value.code == 143
    assert [line["step"] for line in read_jsonl(run.directory.metrics)] == [1, 2, 3]
    found = newest(run.directory.checkpoints)
    assert found is not None
    assert found[1].step == 3
    assert not (run.directory.path / "result.json").exists()


def test_a_run_that_fails_still_completes_the_checkpoint_of_the_step_before(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path / "run", prepared)
    written = asyncio.Event()

    async def slowly() -> None:
        await asyncio.wait_for(written.wait(), 10)

    run.stages.trainers.written = slowly  # type: ignore[method-assign]
    train = run.stages.trainers.train

    async def failing(batch: TrainBatch) -> Any:
        if batch.step == 3:
            assert newest(run.directory.checkpoints) is None, "the step waited for the checkpoint"
            written.set()
            raise RuntimeError("out of memory")
        return await train(batch)

    run.stages.trainers.train = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(run.run())
    found = newest(run.directory.checkpoints)
    assert found is not None
    assert found[1].step == 2
    assert json.loads((found[0] / "run.json").read_text())["files"] == {"weights": 1}
