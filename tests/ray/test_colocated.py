"""Generators beside the trainer ranks, on real engines: the same run as apart, in which they never work at the same time,
although one of each is killed in the ranks' turn.

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

from actors import launch, run_checks
from actors.trainer.supervisor import Trainers
from renio_pipeline.config import load
from renio_pipeline.ledger import prove_exactly_once
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import TrainBatch, TrainReport
from tests.ray.runs import ROOT, STEPS, WHOLE, lines_of, metrics, written

# Of a line of metrics, what the two that are killed change.
OF_THE_KILLED = {"pool/generator/size", "pool/generator/restarts", "pool/trainer/restarts"}
COLOCATED = ["placement=colocated", "trainer.offload=optimizer"]


@dataclass
class Watch:
    """What the generators did while the ranks trained, step by step."""

    stages: Stages
    during: Callable[[Watch, int], Awaitable[None]]
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
    def generators(self) -> list[Any]:
        pool: Any = self.stages.generators
        return pool.workers.serving

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
    """Kills a generator before the first step is trained, and a rank before the third one is."""

    folder: Path
    left: list[str] = field(default_factory=lambda: ["generator", "rank"])
    loaded_meanwhile: int = -1  # generators that began to load while the ranks had their turn

    async def __call__(self, watch: Watch, step: int) -> None:
        if step == 1 and "generator" in self.left:
            self.left.remove("generator")
            os.kill(watch.generators[0].pid, signal.SIGKILL)
            pool: Any = watch.stages.generators
            await pool.workers.until(lambda: pool.workers.restarts == 1)
            await asyncio.sleep(0.5)
            self.loaded_meanwhile = pool.status()["starting"]
        if step == 3 and "rank" in self.left:
            self.left.remove("rank")
            while not (self.folder / "checkpoints/latest").exists():
                await asyncio.sleep(0.05)
            os.kill(watch.trainers._pids[1], signal.SIGKILL)


async def run_in(
    folder: Path, *overrides: str, during: Callable[[Watch, int], Awaitable[None]]
) -> tuple[Watch, list[str], list[dict[str, Any]]]:
    """A run in this process. Returns what was seen, its notes, and the placement groups that it had."""
    config = load(ROOT / "configs/demo.yaml", [f"run_dir={folder}", *overrides, *COLOCATED])
    prepared = run_checks.check(config, run_checks.prepare_locally(config))
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
    """The whole run of the other tests, but for its placement, and for the two that are killed."""
    folder: Path = tmp_path_factory.mktemp("runs") / "colocated"
    strikes = Strikes(folder)
    watch, notes, groups = asyncio.run(run_in(folder, *WHOLE, during=strikes))
    return SimpleNamespace(folder=folder, watch=watch, notes=notes, groups=groups, strikes=strikes)


@pytest.mark.timeout(1200)
def test_it_is_the_run_that_it_would_be_apart_digit_for_digit(colocated: Any, whole_run: Path) -> None:
    found, expected = metrics(colocated.folder), metrics(whole_run)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for one, other in zip(found, expected, strict=True):
        assert {name for name in {*one, *other} if one.get(name) != other.get(name)} <= OF_THE_KILLED, one["step"]
    assert written(colocated.folder) == written(whole_run)
    last = f"checkpoints/step_{STEPS:06d}"
    assert (colocated.folder / last / "hf/model.safetensors").read_bytes() == (
        whole_run / last / "hf/model.safetensors"
    ).read_bytes()
    prove_exactly_once(colocated.folder)


def test_a_generator_and_a_rank_that_are_killed_in_the_ranks_turns_are_replaced_and_it_goes_on(colocated: Any) -> None:
    watch = colocated.watch
    assert colocated.strikes.left == []
    assert colocated.strikes.loaded_meanwhile == 0, "it must not load in the ranks' turn"
    assert watch.steps == [1, 2, 3, *range(3, STEPS + 1)]
    assert (watch.stages.generators.workers.restarts, watch.trainers.restarts) == (1, 1)
    assert [line["incarnation"] for line in lines_of(colocated.folder / "resumes.jsonl")] == [1]
    again = [note for note in colocated.notes if "all ranks restart after step 2" in note]
    assert len(again) == 1
    others = [note for note in colocated.notes if note not in again and not note.startswith("checkpoint ")]
    assert all("generator" in note for note in others), others


@pytest.mark.timeout(1200)
def test_what_was_in_host_memory_is_in_the_checkpoint(colocated: Any, whole_run: Path) -> None:
    from actors.trainer.checkpoint_writer import WriterEngine

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
    assert len(watch.worked_before) == STEPS
    assert watch.worked_before == watch.worked_after
    between = np.diff(watch.worked_before)[1:]  # after the first step another generator counts from nothing
    assert (between > 0).all(), "they did not work at all: the test tests nothing"
    assert watch.serving == [1, *[2] * (STEPS - 1)]
    assert len(watch.refusals) == sum(watch.serving)
    assert all("the engine sleeps" in text for text in watch.refusals)


def test_a_generator_and_a_rank_share_a_bundle_that_ends_with_the_run(colocated: Any) -> None:
    (shared,) = [g for g in colocated.groups if len(g["bundles"]) == 2]
    assert list(shared["bundles"].values()) == [{"CPU": 0.5}] * 2
    left = [g for g in ray.util.placement_group_table().values() if g["state"] == "CREATED"]
    assert left == []
