"""A pool that follows the load while a run goes on; and which schedules a configuration may ask for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Autoscale
from renio_pipeline.control.autoscaler import follow_load
from tests.unit.conftest import make_config


@dataclass
class FakePool:
    """Its replicas share ``load`` replicas' worth of work; it has the size that it is told, but never more than ``room``."""

    load: float
    target: int = 1
    room: int = 99
    seconds: float = 0.0
    sizes: list[int] = field(default_factory=list)

    @property
    def serving(self) -> int:
        return min(self.target, self.room)

    def status(self) -> dict[str, int]:
        queue = 10 if self.load > self.serving else 0
        return {"target": self.target, "serving": self.serving, "queue": queue, "in_flight": 0}

    async def busy_seconds(self) -> dict[str, float]:
        now = asyncio.get_running_loop().time()
        return {str(i): now * min(1.0, self.load / self.serving) for i in range(self.serving)}

    def resize(self, size: int) -> None:
        self.sizes.append(size)
        self.target = size


def followed(pool: FakePool, *, reach: int = 0, closed: bool = False, **limits: Any) -> list[str]:
    """What was noted while ``follow_load`` looked at the pool: until it had ``reach`` replicas, and for a little longer."""
    notes: list[str] = []

    async def go() -> None:
        scaler = Autoscale(interval_seconds=0.01, patience=2, **limits)
        pause: Any = SimpleNamespace(requested=closed)
        task = asyncio.create_task(follow_load("teacher", pool, scaler, pause, notes.append))  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            while reach and pool.target != reach:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.15)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled(), "it ended by itself"

    asyncio.run(go())
    return notes


def test_a_pool_that_is_the_slower_stage_grows_one_by_one_up_to_its_limit_and_says_why() -> None:
    pool = FakePool(load=9.0)
    notes = followed(pool, max=4, reach=4)
    assert pool.sizes == [2, 3, 4]
    assert notes[0] == "pool teacher: 1 -> 2 replicas: idle for 0%, 10 samples wait"


def test_a_pool_that_waits_shrinks_to_what_its_load_needs() -> None:
    pool = FakePool(load=1.0, target=6)
    followed(pool, min=1, max=8, reach=2)
    assert pool.sizes == [5, 4, 3, 2], "it went below, where one replica would be too few"


@pytest.mark.parametrize(("pool", "closed"), [(FakePool(load=9.0, target=2, room=1), False), (FakePool(load=9.0), True)])
def test_an_incomplete_or_paused_pool_says_nothing_of_the_load(pool: FakePool, closed: bool) -> None:
    followed(pool, closed=closed, max=8)
    assert pool.sizes == []


EXACT = {"deterministic": True, "generator": {"dtype": "float32"}, "trainer": {"dtype": "float32"}}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"in_flight": "keep"}, "set max_staleness to 1 or more"),
        ({**EXACT, "max_staleness": 1}, "deterministic needs max_staleness 0, not 1"),
        ({"pools": {"trainer": {"autoscale": {"max": 2}}}}, "the number of trainer ranks is fixed"),
        (
            {"pools": {"generator": {"replicas": 3, "autoscale": {"max": 2}}}},
            "must lie within pools.generator.autoscale, 1 to 2",
        ),
        ({"pools": {"teacher": {"autoscale": {"min": 3, "max": 2}}}}, "max (2) must be at least min (3)"),
        ({**EXACT, "pools": {"teacher": {"autoscale": {"max": 2}}}}, "pools.teacher.autoscale: deterministic fixes"),
        ({"max_staleness": -1}, "max_staleness"),
        ({"sampling": {"temperature": 2.5}}, "sampling.temperature (2.5) may be at most twice temperature (1.0)"),
        ({"temperature": 0.4, "sampling": {"temperature": 0.4}}, "evaluate.temperature (1.0) may be at most twice"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_the_key_to_change(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**changes)
    assert text in str(caught.value)


def test_a_run_may_be_ahead_keep_what_is_in_flight_and_follow_the_load() -> None:
    config = make_config(max_staleness=3, in_flight="keep", pools={"generator": {"replicas": 2, "autoscale": {"max": 4}}})
    assert config.autoscaled == {"generator": Autoscale(max=4)}
