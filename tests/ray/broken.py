"""The run of ``whole_run`` in three parts, for all tests that hold it against the run that nothing interrupts.

The first driver is killed while it writes a checkpoint. The second is stopped by SIGTERM in its first step. The third, in this
process, has its generators beside the trainer ranks, and loses a generator and a rank in the ranks' turns.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

from actors import launch, run_checks
from actors.trainer.supervisor import Trainers
from renio_pipeline.config import load
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.resume import resume_point
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import TrainBatch, TrainReport
from tests.ray import runs, warm
from tests.ray.runs import ROOT, STEPS, finish, lines_of

COLOCATED = ["placement=colocated", "trainer.offload=optimizer"]


@dataclass(frozen=True)
class Broken:
    folder: Path
    stopped_after: int  # the last step of the second part
    watch: Watch  # the third part
    strikes: Strikes
    notes: list[str]
    groups: list[dict[str, Any]]  # the placement groups that the third part had


def break_and_finish(folder: Path, whole: list[str]) -> Broken:
    """The whole run, with all that happens to it. Needs a Ray cluster in this process.

    Args:
        whole: the overrides of the run.
    """
    kill_while_a_checkpoint_is_written(folder, whole)
    stopped_after = end_by_sigterm(folder, whole)
    return asyncio.run(finish_colocated(folder, whole, stopped_after))


@dataclass
class Watch:
    """What the generators did while the ranks trained, step by step."""

    stages: Stages
    during: Strikes
    steps: list[int] = field(default_factory=list)
    worked_before: list[float] = field(default_factory=list)  # seconds of all generators together
    worked_after: list[float] = field(default_factory=list)
    serving: list[int] = field(default_factory=list)  # generators, after the step
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._train = self.trainers.train
        self.trainers.train = self.train  # type: ignore[method-assign]

    @property
    def trainers(self) -> Trainers:
        found: Any = self.stages.trainers
        return found

    @property
    def pool(self) -> Any:
        """That of the generators, beside which ``data.off_policy`` has the rows' solutions."""
        return getattr(self.stages.generators, "student", self.stages.generators)

    @property
    def generators(self) -> list[Any]:
        found: list[Any] = self.pool.workers.serving
        return found

    async def train(self, batch: TrainBatch) -> TrainReport:
        await self.during(self, batch.step)
        self.steps.append(batch.step)
        before = await self._worked()
        report = await self._train(batch)
        self.worked_before.append(before)
        self.worked_after.append(await self._worked())
        self.serving.append(len(self.generators))
        for worker in self.generators:
            with pytest.raises(RuntimeError) as caught:
                await worker.actor.score.remote([[3, 4, 5]])
            self.refusals.append(str(caught.value))
        return report

    async def _worked(self) -> float:
        return sum((await self.stages.generators.busy_seconds()).values())


@dataclass
class Strikes:
    """Kills a generator before the first step that is trained, and a rank before a later one, after a checkpoint."""

    folder: Path
    first: int
    left: list[str] = field(default_factory=lambda: ["generator", "rank"])
    loaded_meanwhile: int = -1  # generators that began to load while the ranks had their turn

    @property
    def second(self) -> int:
        """The step after the first checkpoint; every second step has one."""
        return self.first + 1 + self.first % 2

    async def __call__(self, watch: Watch, step: int) -> None:
        if step == self.first and "generator" in self.left:
            self.left.remove("generator")
            os.kill(watch.generators[0].pid, signal.SIGKILL)
            pool = watch.pool
            await pool.workers.until(lambda: pool.workers.restarts == 1)
            await asyncio.sleep(0.5)
            self.loaded_meanwhile = pool.status()["starting"]
        if step == self.second and "rank" in self.left:
            self.left.remove("rank")
            latest = self.folder / "checkpoints/latest"
            while latest.read_text().strip() != f"step_{step - 1:06d}":
                await asyncio.sleep(0.05)
            os.kill(watch.trainers._pids[1], signal.SIGKILL)


def wait_until(process: subprocess.Popen[str], condition: Callable[[], Any]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


def kill_while_a_checkpoint_is_written(folder: Path, whole: list[str]) -> None:
    """A later one than the first: what was trained since the one before it is trained again.

    Its workers are not forked: a fork would end whatever Ray does, and nothing of this driver's Ray may outlive it.
    """
    process = runs.train(folder, *whole, "--resume", forked=False)  # nothing there yet: it starts
    checkpoints, partial = folder / "checkpoints", ".step_*.0.partial"
    wait_until(process, lambda: (checkpoints / "latest").exists())
    while True:
        wait_until(process, lambda: any(p.is_file() for p in checkpoints.glob(f"{partial}/**/*")))
        process.send_signal(signal.SIGSTOP)  # so that it cannot commit while we look again
        if list(checkpoints.glob(partial)):
            break
        process.send_signal(signal.SIGCONT)
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left, f"a minute after the driver's death there still are {left}"
    assert list(checkpoints.glob(partial)), "nothing was half written: the test tests nothing"
    kept = int((checkpoints / "latest").read_text().strip().removeprefix("step_"))
    assert lines_of(folder / "metrics.jsonl")[-1]["step"] > kept > 0, "nothing is trained again: the test tests nothing"


def end_by_sigterm(folder: Path, whole: list[str]) -> int:
    """Returns the last step that it has done."""
    process = runs.train(folder, *whole, "--resume")
    wait_until(process, lambda: lines_of(folder / "ledger/rank_0.jsonl")[-1]["incarnation"] == 1)  # in its first step
    started = warm.with_forked(psutil.Process(process.pid).children(recursive=True))
    process.terminate()
    assert "Traceback" not in finish(process, 143, seconds=120)  # a minute of grace, and the shutdown
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left, "it left processes behind"
    last = lines_of(folder / "metrics.jsonl")[-1]["step"]
    assert last < STEPS, "the run ended before the signal came: the test tests nothing"
    assert (folder / "checkpoints/latest").read_text().strip() == f"step_{last:06d}"
    return int(last)


async def finish_colocated(folder: Path, whole: list[str], done: int) -> Broken:
    """Go on after the step ``done`` in this process, to the end."""
    config = load(ROOT / "configs/demo.yaml", [f"run_dir={folder}", *whole, *COLOCATED])
    prepared = run_checks.check(config, run_checks.prepare_locally(config))
    point = resume_point(config)
    assert point.state.step == done
    directory, notes, strikes = RunDirectory(config, point.state), list[str](), Strikes(folder, done + 1)
    shown = SimpleNamespace(note=notes.append, step=lambda step, values: None, evaluation=lambda step, result: None)
    async with launch.stages(config, prepared, point, note=notes.append) as stages:
        watch = Watch(stages, strikes)
        groups = [g for g in ray.util.placement_group_table().values() if g["state"] == "CREATED"]
        run = Run(
            config=config,
            prepared=prepared,
            stages=stages,
            directory=directory,
            progress=shown,
            sinks=[JsonlSink(directory.metrics)],
            start=point.state,
        )
        await run.run()
    return Broken(folder, done, watch, strikes, notes, groups)
