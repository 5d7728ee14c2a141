"""Two drivers of one run directory: the second is refused, or the first finds out. Real processes, stages that are fakes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from renio_pipeline.control.commands import Commands, Events
from renio_pipeline.ledger import prove_exactly_once
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import JsonlSink, read_jsonl
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir import lease, lease_files
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.fence import Fence
from renio_pipeline.run_dir.resume import resume_point
from tests.fakes.stages import Notes, config_of, prepared, stages_of

__all__ = ["prepared"]  # a fixture
ROOT = Path(__file__).parents[2]
CHANGES: dict[str, Any] = {"checkpoint": {"every": 2}, "evaluate": {"problems": 0}}


def run_of(folder: Path, prepared: Prepared, steps: int, fence: Fence) -> Run:
    config = config_of(run_dir=str(folder), steps=steps, **CHANGES)
    directory = RunDirectory(config, fence=fence)
    return Run(
        config=config,
        prepared=prepared,
        stages=stages_of(prepared, config),
        directory=directory,
        progress=Notes(),
        sinks=[JsonlSink(directory.metrics, fence)],
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run but its lease, in which its heartbeat is."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and lease_files.FOLDER not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def with_ledger(run: Run, folder: Path, fence: Fence) -> None:
    """Let the run's fake ranks write the ledger that real ones do."""
    train = run.stages.trainers.train

    async def recorded(batch: Any) -> Any:
        line = {"step": batch.step, "incarnation": 0, "sample_ids": [s.sample_id for s in batch.samples]}
        fence.append(folder / "ledger" / "rank_0.jsonl", json.dumps(line).encode() + b"\n")
        return await train(batch)

    run.stages.trainers.train = recorded  # type: ignore[method-assign]


async def resume_is_refused(run: Run, config: Path) -> None:
    """The command, from a second terminal."""
    folder = run.directory.path
    await run.checkpointer.finish()  # which would go on while the command runs
    before = contents(folder)
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "renio_pipeline", "train", "--config", str(config), "--resume",
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, error = await second.communicate()
    assert contents(folder) == before
    (line,) = error.decode().splitlines()
    assert second.returncode == 2, line
    assert line.startswith(f"error: run_dir: {folder} is held by process {os.getpid()} on ")
    assert "last heartbeat" in line


def test_a_resume_of_a_live_run_is_refused_and_changes_nothing(tmp_path: Path, prepared: Prepared) -> None:
    """While the run is between two checkpoints, and while it is paused."""
    folder, config = tmp_path / "run", tmp_path / "run.yaml"

    async def go(run: Run) -> None:
        commands, train, running = Commands(run, Events()), run.stages.trainers.train, asyncio.create_task(run.run())

        async def refused_meanwhile(batch: Any) -> Any:
            if batch.step == 4:
                await resume_is_refused(run, config)
                pausing.append(asyncio.create_task(commands("pause", {})))
            return await train(batch)

        pausing: list[asyncio.Task[Any]] = []
        run.stages.trainers.train = refused_meanwhile  # type: ignore[method-assign]
        while not pausing:
            await asyncio.sleep(0.01)
            assert not running.done()
        assert await pausing[0] == {"state": "paused"}
        await resume_is_refused(run, config)
        assert (await commands("status", {}))["step"] == run.step == 4
        assert await commands("resume", {}) == {"state": "running"}
        await running

    with lease.held(folder) as held:
        run = run_of(folder, prepared, 6, held.fence)
        with_ledger(run, folder, held.fence)
        OmegaConf.save(OmegaConf.create(run.config.model_dump(mode="json")), config)
        asyncio.run(go(run))
    assert [line["step"] for line in read_jsonl(run.directory.metrics)] == [1, 2, 3, 4, 5, 6]
    prove_exactly_once(folder)


HOLDER = """
    import asyncio, sys
    from pathlib import Path
    from renio_pipeline import cli
    from renio_pipeline.preflight import prepare
    from renio_pipeline.run_dir import lease
    from renio_pipeline.run_dir.holders import Place
    from tests.actors.test_two_drivers import run_of
    from tests.fakes.stages import config_of

    def drive(args):
        folder = Path(sys.argv[1])
        with lease.held(folder, here=Place(host="elsewhere", boot="b", pids="p"), silence_seconds=0.6) as held:
            run = run_of(folder, prepare(config_of()), 100000, held.fence)
            score = run.stages.teachers.score
            async def slowly(rollouts, step):
                await asyncio.sleep(0.02)
                return await score(rollouts, step)
            run.stages.teachers.score = slowly
            asyncio.run(run.run())

    cli.run._train = drive
    sys.exit(cli.main(["train", "--config", "x"]))
"""


def test_a_driver_that_was_stopped_and_wakes_after_another_took_over_ends_and_writes_nothing(
    tmp_path: Path, prepared: Prepared
) -> None:
    folder = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_steps(folder, 5, first)
        first.send_signal(signal.SIGSTOP)
        with lease.held(folder, silence_seconds=0.6, takeover=True) as held:
            config = config_of(run_dir=str(folder), steps=8, **CHANGES)
            point = resume_point(config_of(run_dir=str(folder), steps=10**6, **CHANGES))
            directory = RunDirectory(config, point.state, held.fence)
            before = contents(folder)
            assert read_jsonl(directory.metrics)[-1]["step"] == point.state.step > 0
            first.send_signal(signal.SIGCONT)
            _, error = first.communicate(timeout=60)
            assert contents(folder) == before
    finally:
        first.kill()
        first.wait()
    assert first.returncode == 1
    assert error == (
        f"error: {folder}: another driver has taken this run's directory over, or its lease was removed; this one ends, and "
        "writes nothing more\n"
    )


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[str]) -> None:
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < steps:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
