"""Running ahead, going back and obeying commands: the real loop, with stages that are fakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.control.commands import Commands, Events, WithEvents
from renio_pipeline.control.protocol import Refused
from renio_pipeline.ledger import prove_exactly_once
from renio_pipeline.loop import stranded
from renio_pipeline.loop.lookahead import Lookahead
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.stages.outcomes import Collected
from renio_pipeline.stages.protocols import TrainerLost
from renio_pipeline.types import Prompt, Rollout, TrainBatch, TrainReport, Version
from tests.fakes.stages import BATCH, FakeGenerators, FakeTrainers, config_of, kind, run_of


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(config_of())


@given(bound=st.integers(0, 4), last=st.integers(1, 12), first=st.integers(0, 5))
@settings(deadline=None)
def test_no_step_is_collected_before_the_bound_allows_it_and_every_step_once(bound: int, last: int, first: int) -> None:
    begun: list[int] = []

    async def collect(step: int) -> Collected:
        begun.append(step)
        return Collected(step=step, judged={}, scored=[], began=0.0, seconds={})

    async def go() -> None:
        ahead = Lookahead(collect, last=last, bound=bound)
        for step in range(first, last):
            ahead.learned(step)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert begun == list(range(first + 1, min(step + 1 + bound, last) + 1))
            assert (await ahead.take(step + 1)).step == step + 1
        await ahead.cancel()

    asyncio.run(go())


def test_a_step_that_cannot_be_collected_says_so_when_its_turn_comes() -> None:
    async def collect(step: int) -> Collected:
        raise RuntimeError(f"no luck with {step}")

    async def go() -> None:
        ahead = Lookahead(collect, last=3, bound=1)
        ahead.learned(0)
        with pytest.raises(RuntimeError, match="no luck with 1"):
            await ahead.take(1)
        await ahead.cancel()

    asyncio.run(go())


@dataclass
class WatchedTrainers(FakeTrainers):
    """Writes a ledger as the ranks do, waits for ``gate`` in each step, and is lost in the steps that ``lost_in`` names."""

    folder: Path = Path()
    lost_in: list[int] = field(default_factory=list)
    begun: list[ResumePoint] = field(default_factory=list)
    incarnation: int = 0
    during: Callable[[int], Any] = lambda step: asyncio.sleep(0)

    async def train(self, batch: TrainBatch) -> TrainReport:
        await self.during(batch.step)
        if self.lost_in and batch.step == self.lost_in[0]:
            self.lost_in.pop(0)
            raise TrainerLost("a trainer rank is lost: it was shot")
        line = {"step": batch.step, "incarnation": self.incarnation, "sample_ids": [s.sample_id for s in batch.samples]}
        with (self.folder / "ledger/rank_0.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return await super().train(batch)

    async def begin(self, point: ResumePoint) -> None:
        self.begun.append(point)
        self.incarnation = point.state.version.incarnation


@dataclass
class FakePool:
    """Only its size matters; it is always idle."""

    size: int = 1
    holds: int = 0
    cancelled: int = 0
    waiting: bool = False  # every worker, for a node

    def status(self) -> dict[str, int]:
        return {
            "target": self.size,
            "serving": 0 if self.waiting else self.size,
            "starting": 0,
            "waiting": self.size if self.waiting else 0,
            "queue": 0,
            "in_flight": 0,
            "restarts": 0,
        }

    def resize(self, size: int) -> None:
        self.size = size

    async def busy_seconds(self) -> dict[str, float]:
        return {}

    @asynccontextmanager
    async def paused_dispatch(self, *, drain: bool) -> AsyncIterator[None]:
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1

    async def cancel_all(self) -> None:
        self.cancelled += 1


def service_of(folder: Path, prepared: Prepared, **changes: Any) -> Run:
    made = run_of(folder, prepared, **changes)
    stages = made.stages
    stages.trainers = WatchedTrainers(stages.generators, folder=made.directory.path)
    stages.pools = {"generator": FakePool(), "teacher": FakePool()}
    return Run(
        config=made.config, prepared=prepared, stages=stages, directory=made.directory, progress=made.progress, sinks=made.sinks
    )


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_samples_are_as_old_as_the_bound_allows_and_no_older(tmp_path: Path, prepared: Prepared, bound: int) -> None:
    run = service_of(tmp_path, prepared, steps=8, max_staleness=bound, evaluate={"problems": 0})
    run.stages.trainers.during = lambda step: asyncio.sleep(0.02)  # the fake generators are done long before
    asyncio.run(run.run())
    ages = [line["staleness/max"] for line in read_jsonl(run.directory.metrics)]
    assert ages == [min(step, bound) for step in range(8)]
    prove_exactly_once(run.directory.path)


def test_a_sample_older_than_the_bound_is_not_trained_on(tmp_path: Path, prepared: Prepared) -> None:
    class FakeGeneratorsThatMissSyncs(FakeGenerators):
        def write(self, prompt: Prompt) -> Rollout:
            self.version = Version(0, 0)
            return super().write(prompt)

    run = service_of(tmp_path, prepared, steps=4, max_staleness=1, evaluate={"problems": 0})
    generators = run.stages.generators = FakeGeneratorsThatMissSyncs(prepared.tokenizer)
    run.stages.trainers.generators = generators
    with pytest.raises(AssertionError, match=r"were not written by version 0\.2 or up to 1 before it"):
        asyncio.run(run.run())
    assert len(run.stages.trainers.batches) == 2


def test_a_filter_draws_for_one_step_after_the_other_also_when_it_runs_ahead(tmp_path: Path, prepared: Prepared) -> None:
    run = service_of(tmp_path, prepared, steps=4, max_staleness=2, filter="incorrect", evaluate={"problems": 0})
    asyncio.run(run.run())
    trained = [[s.sample_id for s in batch.samples] for batch in run.stages.trainers.batches]
    assert [kind(i) for batch in trained for i in batch] == ["incorrect"] * (4 * BATCH)
    assert trained == sorted(trained)
    assert all(max(a) < min(b) for a, b in pairwise(trained))


@pytest.mark.parametrize("bound", [0, 2])
@pytest.mark.parametrize("lost_in", [[1], [5], [4, 4, 6]], ids=str)
def test_a_lost_rank_sends_the_run_back_to_its_checkpoint(
    tmp_path: Path, prepared: Prepared, bound: int, lost_in: list[int]
) -> None:
    run = service_of(tmp_path, prepared, steps=7, max_staleness=bound, checkpoint={"every": 2}, evaluate={"problems": 5})
    run.stages.trainers.lost_in = list(lost_in)
    outcome = asyncio.run(run.run())
    folder = run.directory.path
    prove_exactly_once(folder)
    lines = read_jsonl(run.directory.metrics)
    assert [line["step"] for line in lines] == list(range(1, 8))
    back = [(step - 1) // 2 * 2 for step in lost_in]
    assert [point.state.step for point in run.stages.trainers.begun] == back
    assert [point.state.version.incarnation for point in run.stages.trainers.begun] == list(range(1, len(lost_in) + 1))
    assert run.replayed["steps"] == sum(step - 1 - start for step, start in zip(lost_in, back, strict=True))
    assert run.replayed["samples"] == BATCH * run.replayed["steps"]
    assert run.stages.pools["generator"].cancelled == len(lost_in)
    assert list(outcome["evaluations"]) == [0, 7], "an evaluation was made twice, or not at all"
    versions = [json.loads(path.read_text().splitlines()[0])["version"] for path in sorted((folder / "samples").iterdir())]
    assert versions[-1].startswith(f"{len(lost_in)}."), "samples of an incarnation that is gone were trained on"


def commanded(
    tmp_path: Path,
    prepared: Prepared,
    script: Callable[[Run, Commands], Any],
    prepare: Callable[[Run], None] = lambda run: None,
    **changes: Any,
) -> tuple[Run, int | None]:
    """A run, and a script of commands beside it. Returns the run and its exit code, if it left by one."""
    run = service_of(tmp_path, prepared, **({"steps": 30, "evaluate": {"problems": 0}} | changes))
    run.stages.trainers.during = lambda step: asyncio.sleep(0.005)
    prepare(run)
    events = Events()
    run.progress = WithEvents(run.progress, events)

    async def go() -> int | None:
        beside = asyncio.create_task(script(run, Commands(run, events)))
        code: int | None = None
        try:
            async with asyncio.timeout(30):
                await run.run()
        except SystemExit as left:
            code = int(left.code or 0)
        await beside
        return code

    return run, asyncio.run(go())


async def reached(run: Run, step: int) -> None:
    while run.step < step:
        await asyncio.sleep(0.001)


def test_a_paused_run_holds_still_and_goes_on_where_it_was(tmp_path: Path, prepared: Prepared) -> None:
    async def script(run: Run, commands: Commands) -> None:
        await reached(run, 3)
        assert await commands("pause", {}) == {"state": "paused"}
        step, pools = run.step, run.stages.pools
        assert all(pool.holds == 1 for pool in pools.values())
        await asyncio.sleep(0.1)
        assert run.step == step
        status = await commands("status", {})
        assert (status["state"], status["step"], status["steps"]) == ("paused", step, 30)
        asked = await commands("checkpoint", {})
        assert asked == {"step": step, "path": str(run.directory.path.absolute() / f"checkpoints/step_{step:06d}")}
        assert await commands("resume", {}) == {"state": "running"}
        assert not any(pool.holds for pool in pools.values())

    run, code = commanded(tmp_path, prepared, script)
    assert (run.step, code) == (30, None)
    prove_exactly_once(run.directory.path)


def test_a_checkpoint_that_is_asked_for_is_of_the_step_under_way(tmp_path: Path, prepared: Prepared) -> None:
    replies = []

    async def script(run: Run, commands: Commands) -> None:
        await reached(run, 2)
        replies.append(await commands("checkpoint", {}))

    commanded(tmp_path, prepared, script)
    (reply,) = replies
    assert 3 <= reply["step"] < 30
    assert Path(reply["path"]).name == f"step_{reply['step']:06d}"
    assert json.loads((Path(reply["path"]) / "run.json").read_text())["step"] == reply["step"]


@pytest.mark.parametrize("paused", [False, True])
def test_a_run_that_is_told_to_stop_ends_with_a_checkpoint_and_without_an_error(
    tmp_path: Path, prepared: Prepared, paused: bool
) -> None:
    async def script(run: Run, commands: Commands) -> None:
        await reached(run, 3)
        if paused:
            await commands("pause", {})
        await commands("stop", {})
        assert (await commands("status", {}))["state"] == "stopping"

    run, code = commanded(tmp_path, prepared, script)
    assert code == 0
    assert 3 <= run.step < 30
    assert (run.directory.checkpoints / "latest").read_text().strip() == f"step_{run.step:06d}"


def test_scaling_changes_the_target_and_refuses_what_cannot_be(tmp_path: Path, prepared: Prepared) -> None:
    async def script(run: Run, commands: Commands) -> None:
        assert await commands("scale", {"generator": 3}) == {"generator": {"target": 3, "serving": 3}}
        assert run.stages.pools["generator"].size == 3
        for sizes, text in (
            ({"trainer": 2}, "the trainer's size is fixed"),
            ({"teacher.x": 2}, "there are generator, teacher"),
            ({"generator": 0}, "at least 1"),
            ({"generator": 2, "nobody": 1}, "no pool 'nobody'"),
        ):
            with pytest.raises(Refused, match=text):
                await commands("scale", sizes)
        assert run.stages.pools["generator"].size == 3, "a refused command was half done"
        with pytest.raises(Refused, match="not a command"):
            await commands("explode", {})

    commanded(tmp_path, prepared, script)


def stopped(run: Run) -> int:
    """The exit code of a run that stops by itself. ``wait_for`` would have its own task end by it, and nobody retrieve that."""

    async def go() -> None:
        async with asyncio.timeout(30):
            await run.run()

    with pytest.raises(SystemExit) as left:
        asyncio.run(go())
    return int(left.value.code or 0)


class FakeGeneratorsWithoutANode(FakeGenerators):
    """Write nothing while ``lost`` says so."""

    lost: Callable[[], bool]

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        while self.lost():
            await asyncio.sleep(0.001)
        async for rollout in super().generate(prompts, temperature):
            yield rollout


@pytest.mark.parametrize("pool", ["generator", "teacher"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_stop_does_not_wait_for_a_pool_that_has_no_node(
    tmp_path: Path, prepared: Prepared, pool: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stranded, "PATIENCE_SECONDS", 0.2)

    async def script(run: Run, commands: Commands) -> None:
        await reached(run, after)
        run.stages.pools[pool].waiting = True
        await asyncio.sleep(0.5)
        assert run.step == after, "the pool had no worker"
        await commands("stop", {})

    def lose(run: Run) -> None:
        made = run.stages.generators = FakeGeneratorsWithoutANode(prepared.tokenizer)
        made.lost = lambda: run.step >= after
        run.stages.trainers.generators = made

    run, code = commanded(tmp_path, prepared, script, prepare=lose)
    assert code == 0
    assert run.step == after
    assert f"pool {pool} has no worker, and waits for resources" in "\n".join(run.progress._shown.notes[-2:])
    assert [folder.name for folder in run.directory.checkpoints.glob("step_*")] == ["step_000003"] * (after == 3)


def test_a_stop_waits_for_the_step_while_a_pool_has_a_worker_and_ends_a_pause_that_holds_it_back(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stranded, "PATIENCE_SECONDS", 0.0)
    paused: list[int] = []

    async def script(run: Run, commands: Commands) -> None:
        await reached(run, 3)
        await commands("pause", {})
        paused.append(run.step)
        await commands("stop", {})

    def hold(run: Run) -> None:
        made = run.stages.generators = FakeGeneratorsWithoutANode(prepared.tokenizer)
        made.lost = lambda: run.pause.requested
        run.stages.trainers.generators = made

    run, code = commanded(tmp_path, prepared, script, prepare=hold)
    assert code == 0
    assert run.step == paused[0] + 1
    assert (run.directory.checkpoints / "latest").read_text().strip() == f"step_{run.step:06d}"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_stop_does_not_wait_for_ranks_that_have_no_node(tmp_path: Path, prepared: Prepared, when: str) -> None:
    class FakeTrainersWithoutANode(WatchedTrainers):
        async def begin(self, point: ResumePoint) -> None:
            await super().begin(point)
            if when == "meanwhile":
                run.stop.request()
            await asyncio.Event().wait()

    run = service_of(tmp_path, prepared, steps=7, checkpoint={"every": 2}, evaluate={"problems": 0})
    run.stages.trainers = FakeTrainersWithoutANode(run.stages.generators, folder=run.directory.path, lost_in=[4])

    async def during(step: int) -> None:
        if step == 4 and when == "before":
            run.stop.request()

    run.stages.trainers.during = during
    run.checkpointer._trainers = run.stages.trainers
    assert stopped(run) == 0
    assert [line["step"] for line in read_jsonl(run.directory.metrics)] == [1, 2], "not cut back to the checkpoint"
    prove_exactly_once(run.directory.path)


def test_a_deterministic_run_is_not_scaled(tmp_path: Path, prepared: Prepared) -> None:
    async def script(run: Run, commands: Commands) -> None:
        with pytest.raises(Refused, match="batches depend on its replicas"):
            await commands("scale", {"generator": 3})

    exact = {"deterministic": True, "generator": {"dtype": "float32"}, "trainer": {"dtype": "float32"}}
    commanded(tmp_path, prepared, script, **exact)


def test_a_lost_rank_while_a_checkpoint_is_written_leaves_none_that_counts(tmp_path: Path, prepared: Prepared) -> None:
    class FakeTrainersLostWhileTheyWrite(WatchedTrainers):
        async def written(self) -> None:
            if self.incarnation == 0:
                self.lost_in.append(4)
                while self.lost_in:
                    await asyncio.sleep(0.001)
                raise TrainerLost("a trainer rank is lost: it was shot")

    run = service_of(tmp_path, prepared, steps=6, checkpoint={"every": 3}, evaluate={"problems": 0})
    run.stages.trainers = FakeTrainersLostWhileTheyWrite(run.stages.generators, folder=run.directory.path)
    run.checkpointer._trainers = run.stages.trainers
    asyncio.run(run.run())
    assert [point.state.step for point in run.stages.trainers.begun] == [0], "a checkpoint that was never finished counted"
    assert any("given up" in note for note in run.progress.notes)
    prove_exactly_once(run.directory.path)
