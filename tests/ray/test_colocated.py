"""Generators beside the trainer ranks, on real engines: the same run as apart, in which they never work at the same time.

On a CPU an engine that sleeps keeps its memory; the turns, the placement and all else are as on a GPU.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from actors import launch
from actors.trainers import Trainers
from renio_pipeline.config import load
from renio_pipeline.ledger import prove_exactly_once
from renio_pipeline.metrics import JsonlSink
from renio_pipeline.pipeline import Stages, TrainReport
from renio_pipeline.run import Run
from renio_pipeline.rundir import RunDirectory
from renio_pipeline.types import TrainBatch
from tests.ray.runs import ROOT, STEPS, TWO_OF_EACH, WHOLE, lines_of, metrics, responses

COLOCATED = ["placement=colocated", "trainer.offload=optimizer"]


@dataclass
class Watch:
    """What the generators did while the ranks trained, step by step."""

    stages: Stages
    during: Callable[[Watch, int], Awaitable[None]]
    steps: list[int] = field(default_factory=list)
    worked_before: list[float] = field(default_factory=list)  # seconds of all generators together
    worked_after: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._train = self.trainers.train
        self.trainers.train = self.train  # type: ignore[method-assign]

    @property
    def trainers(self) -> Trainers:
        found: Any = self.stages.trainers
        return found

    @property
    def generators(self) -> list[Any]:
        pool: Any = self.stages.generators
        return pool.workers.serving

    async def train(self, batch: TrainBatch) -> TrainReport:
        await self.during(self, batch.step)
        self.steps.append(batch.step)
        self.worked_before.append(await self._worked())
        report = await self._train(batch)
        self.worked_after.append(await self._worked())
        for worker in self.generators:
            with pytest.raises(RuntimeError) as caught:
                await worker.actor.score.remote([[3, 4, 5]])
            self.refusals.append(str(caught.value))
        return report

    async def _worked(self) -> float:
        return sum((await self.stages.generators.busy_seconds()).values())


async def nothing(watch: Watch, step: int) -> None:
    pass


async def run_in(
    folder: Path, *overrides: str, during: Callable[[Watch, int], Awaitable[None]] = nothing
) -> tuple[Watch, list[str], list[dict[str, Any]]]:
    """A run in this process. Returns what was seen, its notes, and the placement groups that it had."""
    config = load(ROOT / "configs/demo.yaml", [f"run_dir={folder}", *overrides, *COLOCATED])
    prepared = launch.check(config, launch.prepare_locally(config))
    directory, notes = RunDirectory(config), list[str]()
    shown = SimpleNamespace(note=notes.append, step=lambda step, values: None, evaluation=lambda step, result: None)
    async with launch.stages(config, prepared, note=notes.append) as stages:
        watch = Watch(stages, during)
        groups = [g for g in ray.util.placement_group_table().values() if g["state"] == "CREATED"]
        sinks = [JsonlSink(directory.metrics)]
        await Run(config=config, prepared=prepared, stages=stages, directory=directory, progress=shown, sinks=sinks).run()
    return watch, notes, groups


@pytest.fixture(scope="module")
def colocated(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The whole run of the other tests, but for its placement."""
    folder: Path = tmp_path_factory.mktemp("runs") / "colocated"
    watch, notes, groups = asyncio.run(run_in(folder, *WHOLE))
    return SimpleNamespace(folder=folder, watch=watch, notes=notes, groups=groups)


@pytest.mark.timeout(1200)
def test_it_is_the_run_that_it_would_be_apart_digit_for_digit(colocated: Any, whole_run: Path) -> None:
    assert metrics(colocated.folder) == metrics(whole_run)
    assert responses(colocated.folder) == responses(whole_run)
    last = f"checkpoints/step_{STEPS:06d}"
    assert (colocated.folder / last / "hf/model.safetensors").read_bytes() == (
        whole_run / last / "hf/model.safetensors"
    ).read_bytes()
    prove_exactly_once(colocated.folder)
    assert all(note.startswith("checkpoint ") for note in colocated.notes), colocated.notes


@pytest.mark.timeout(1200)
def test_what_was_in_host_memory_is_in_the_checkpoint(colocated: Any, whole_run: Path) -> None:
    from actors.checkpoint_writer import WriterEngine

    read = WriterEngine(None).load  # type: ignore[arg-type]
    for name in [p.name for p in (whole_run / "checkpoints/step_000006/deepspeed/state").iterdir()]:
        found, expected = (read(f / "checkpoints/step_000006/deepspeed/state" / name) for f in (colocated.folder, whole_run))
        assert _same(found, expected), name


def _same(found: Any, expected: Any) -> bool:
    """Nested dicts and lists alike, of tensors with the same bits."""
    if hasattr(expected, "untyped_storage"):
        return np.array_equal(found.view(-1).numpy(), expected.view(-1).numpy())
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return type(found) is type(expected) and (not isinstance(expected, (int, float, str)) or found == expected)


def test_no_engine_made_a_step_while_the_ranks_trained(colocated: Any) -> None:
    watch = colocated.watch
    assert watch.steps == list(range(1, STEPS + 1))
    assert watch.worked_before == watch.worked_after
    between = np.diff(watch.worked_before)
    assert (between > 0).all(), "they did not work at all: the test tests nothing"
    assert len(watch.refusals) == 2 * STEPS
    assert all("the engine sleeps" in text for text in watch.refusals)


def test_a_generator_and_a_rank_share_a_bundle_that_ends_with_the_run(colocated: Any) -> None:
    (shared,) = [g for g in colocated.groups if len(g["bundles"]) == 2]
    assert list(shared["bundles"].values()) == [{"CPU": 0.5}] * 2
    left = [g for g in ray.util.placement_group_table().values() if g["state"] == "CREATED"]
    assert left == []


@pytest.mark.timeout(1200)
def test_a_generator_and_a_rank_are_killed_in_the_ranks_turns_and_it_goes_on(ray_cluster: None, tmp_path: Path) -> None:
    left = ["generator", "rank"]

    async def strike(watch: Watch, step: int) -> None:
        if step == 1 and "generator" in left:
            left.remove("generator")
            os.kill(watch.generators[0].pid, signal.SIGKILL)
            pool: Any = watch.stages.generators
            await pool.workers.until(lambda: pool.workers.restarts == 1)
            await asyncio.sleep(0.5)
            assert pool.status()["starting"] == 0, "it must not load in the ranks' turn"
        if step == 3 and "rank" in left:
            left.remove("rank")
            while not (tmp_path / "run/checkpoints/latest").exists():
                await asyncio.sleep(0.05)
            os.kill(watch.trainers._pids[1], signal.SIGKILL)

    overrides = ["steps=3", "checkpoint.every=2", "evaluate.problems=16"]
    watch, notes, _ = asyncio.run(run_in(tmp_path / "run", *TWO_OF_EACH, *overrides, during=strike))
    assert left == []
    assert watch.steps == [1, 2, 3, 3]
    assert (watch.stages.generators.workers.restarts, watch.trainers.restarts) == (1, 1)  # type: ignore[attr-defined]
    assert any("all ranks begin again after step 2" in note for note in notes)
    lines, written = metrics(tmp_path / "run"), responses(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert max(line["mismatch/logprob_abs_max"] for line in lines) < 1e-4
    assert {r["generator"] for r in written if r["version"] == "0.1"} == {"0", "1"}, "the new one wrote its part"
    assert [line["incarnation"] for line in lines_of(tmp_path / "run/resumes.jsonl")] == [1]
    prove_exactly_once(tmp_path / "run")
