"""Ranks that die while nobody waits for them, and a weighting actor that dies while the run goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.pools.jobs import Service
from actors.pools.weighting import WeightingStage
from actors.trainer import supervisor
from actors.trainer.supervisor import Trainers
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.faults import CrashLoopError
from renio_pipeline.stages.protocols import TrainerLost
from renio_pipeline.weightings import ScoredBatch
from tests.unit.conftest import make_config

EMPTY = ScoredBatch(sample_ids=[], row_ids=[], token_ids=[], student_logprobs=[], teacher_logprobs=[], verdicts=[])


class FakeGroupThatDies:
    """Ranks that start, and are dead at the second ping."""

    size = 1

    def __init__(self) -> None:
        self.pings = 0

    async def setup(self) -> None: ...

    def end(self, pids: Any) -> None: ...

    async def ping(self) -> list[int]:
        self.pings += 1
        if self.pings > 1:
            raise ActorDiedError
        return [0]


class FakeGroupWithoutANode(FakeGroupThatDies):
    """Ranks that have no place until ``node`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.node = asyncio.Event()

    def placed(self) -> bool:
        return self.node.is_set()

    async def setup(self) -> None:
        await self.node.wait()


def service(note: Callable[[str], None] = lambda text: None) -> Service:
    return Service(config=make_config(), quarantine=QuarantineLog(None, note), note=note)


def test_ranks_that_die_again_and_again_end_the_run_also_where_only_a_heartbeat_notices() -> None:
    async def go() -> None:
        made: Any = FakeGroupThatDies
        trainers = Trainers(lambda point: made(), None, None, service())
        for death in range(1, 6):
            await trainers.begin(ResumePoint())
            with pytest.raises(CrashLoopError if death == 5 else TrainerLost):
                await trainers.while_healthy(asyncio.sleep(30))
        await trainers.end()

    asyncio.run(go())


def test_ranks_that_wait_for_a_node_say_so_once_and_begin_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_SECONDS", 0.05)
    notes: list[str] = []

    async def go() -> None:
        group: Any = FakeGroupWithoutANode()
        trainers = Trainers(lambda point: group, None, None, service(notes.append))
        begin = asyncio.create_task(trainers.begin(ResumePoint()))
        await asyncio.sleep(0.3)
        assert not begin.done()
        group.node.set()
        await begin
        await asyncio.sleep(0.1)
        await trainers.end()

    asyncio.run(go())
    assert notes == ["pool trainer: 1 rank waits for resources that the cluster does not have; the run waits too"]


def test_ranks_that_have_a_place_and_start_slowly_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_SECONDS", 0.05)
    asked, notes = list[bool](), list[str]()

    class FakeGroupThatStartsSlowly(FakeGroupThatDies):
        def placed(self) -> bool:
            asked.append(True)
            return True

        async def setup(self) -> None:
            await asyncio.sleep(0.3)

    async def go() -> None:
        made: Any = FakeGroupThatStartsSlowly
        trainers = Trainers(lambda point: made(), None, None, service(notes.append))
        await trainers.begin(ResumePoint())
        await trainers.end()

    asyncio.run(go())
    assert asked, "nobody looked whether they have a place"
    assert notes == []


def test_a_weighting_actor_that_dies_is_asked_again_with_the_same_state() -> None:
    lost: list[str] = []
    asked: list[Any] = []

    async def dies(waiting: Any) -> None:
        waiting.close()
        raise ActorDiedError

    async def answers(waiting: Any) -> Any:
        waiting.close()
        return SimpleNamespace(state="after")

    async def go() -> None:
        stage = WeightingStage(make_config(), service(), "before")
        weigh = SimpleNamespace(remote=lambda batch, state: asked.append(state))
        serving: list[Any] = []

        def lose(reason: str) -> None:
            lost.append(reason)
            serving[:] = [SimpleNamespace(actor=SimpleNamespace(weigh=weigh), during=answers)]

        async def until(condition: Any) -> None:
            assert condition()

        serving.append(SimpleNamespace(actor=SimpleNamespace(weigh=weigh), during=dies, lose=lose))
        stage.workers = SimpleNamespace(serving=serving, until=until, progress=lambda worker: None)  # type: ignore[assignment]
        await stage.weigh(EMPTY)
        assert asked == ["before", "before"]
        assert await stage.state() == "after"
        await stage.restore("earlier")
        assert await stage.state() == "earlier"

    asyncio.run(go())
    assert len(lost) == 1
