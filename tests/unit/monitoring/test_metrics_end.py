"""What alerts need of the endpoint: why and when a run ended, its pauses, its own bounds, the room on its disk."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from renio_pipeline.monitoring.audience import FIRST_GAP_SECONDS, LONGEST_SECONDS, PATIENCE, Audience
from renio_pipeline.monitoring.figures import Figures
from renio_pipeline.monitoring.limits import Limits
from renio_pipeline.monitoring.live import LOOK_SECONDS, Live
from renio_pipeline.monitoring.prometheus import PrometheusSink
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import NonFiniteError
from tests.fakes.stages import BATCH, prepared, run_of
from tests.unit.conftest import make_config
from tests.unit.monitoring.test_metrics_endpoint import Samples, page, samples, value, watched

__all__ = ["prepared"]  # a fixture


@contextmanager
def scraped(sink: PrometheusSink, every: float) -> Iterator[list[Samples]]:
    """Its pages, fetched again and again by another thread, until it answers no more; two are there when this yields."""
    found: list[Samples] = []
    regular = threading.Event()

    def ask() -> None:
        with suppress(OSError):
            while True:
                found.append(samples(page(sink)))
                if len(found) == 2:
                    regular.set()
                time.sleep(every)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        assert regular.wait(60)
        yield found
    finally:
        asker.join(30)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks regularly is waited for on a machine that is busy, too: for a minute, at most."""
    monkeypatch.setattr("renio_pipeline.monitoring.audience.PATIENCE", 1000.0)


@pytest.mark.slow
def test_who_asks_regularly_gets_the_last_steps_too(patient: None, tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, steps=4, metrics_port=0)
    sink = watched(run)
    with scraped(sink, every=0.3) as found:  # a step takes a few milliseconds
        asyncio.run(run.run())
    assert value(found[-1], "renio_steps_total") == 4
    assert (value(found[-1], "renio_failed"), value(found[-1], "renio_not_finite")) == (0, 0)
    assert value(found[-1], "renio_step_samples") == BATCH


@pytest.mark.slow
def test_who_asks_regularly_gets_the_last_steps_of_a_run_that_was_told_to_stop(
    patient: None, tmp_path: Path, prepared: Prepared
) -> None:
    run = run_of(tmp_path, prepared, steps=4, metrics_port=0)
    sink = watched(run)
    step = run.progress.step

    def stop_after_two(number: int, metrics: dict[str, float]) -> None:
        step(number, metrics)
        if number == 2:
            run.stop.request()

    run.progress.step = stop_after_two
    with scraped(sink, every=0.3) as found, pytest.raises(SystemExit):
        asyncio.run(run.run())
    assert value(found[-1], "renio_steps_total") == 2


@pytest.mark.parametrize(("error", "finite"), [(NonFiniteError("step 1: nan"), 0), (RuntimeError("something else"), 1)])
def test_who_asks_regularly_learns_why_a_run_failed(
    patient: None, tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, error: Exception, finite: int
) -> None:
    run = run_of(tmp_path, prepared, metrics_port=0)

    async def train(batch: Any) -> None:
        raise error

    monkeypatch.setattr(run.stages.trainers, "train", train)
    sink = watched(run)
    with scraped(sink, every=0.3) as found, pytest.raises(type(error), match=str(error)):
        asyncio.run(run.run())
    assert value(found[0], "renio_failed") == 0
    assert (value(found[-1], "renio_failed"), value(found[-1], "renio_not_finite")) == (1, 1 - finite)


def seconds_until_served(audience: Audience) -> float:
    began = time.perf_counter()
    asyncio.run(audience.served())
    return time.perf_counter() - began


def asks(audience: Audience) -> None:
    assert audience.page(lambda environ, start: [b"page"])({}, lambda *_: None) == [b"page"]


def test_a_run_that_nobody_watches_does_not_wait_for_anybody() -> None:
    assert seconds_until_served(Audience()) < 0.05


def test_nobody_is_waited_for_who_is_late_or_asks_too_seldom() -> None:
    now = 0.0
    audience = Audience(lambda: now)
    for _ in range(3):
        asks(audience)
        now += 10
    assert audience._due() == pytest.approx(20 + 10 * PATIENCE)
    now = 36.0
    assert seconds_until_served(audience) < 0.05
    now = 1000.0
    asks(audience)
    assert audience._due() == 1000 + LONGEST_SECONDS
    once = Audience(lambda: now)
    asks(once)
    assert once._due() == pytest.approx(1000 + FIRST_GAP_SECONDS * PATIENCE)


def collected(*parts: Any) -> Samples:
    return samples("".join(generate_latest(part).decode() for part in parts))


@pytest.mark.slow
def test_a_pause_is_seen_and_counts_as_no_delay() -> None:
    live, paused = Live("run"), False

    async def go() -> tuple[Samples, Samples, Samples]:
        nonlocal paused
        task = asyncio.create_task(live.look(dict, lambda: paused))
        await asyncio.sleep(0.01)
        running, paused = collected(live), True
        await asyncio.sleep(LOOK_SECONDS * 1.5)
        held, paused = collected(live), False
        await asyncio.sleep(LOOK_SECONDS * 2)
        task.cancel()
        return running, held, collected(live)

    running, held, after = asyncio.run(go())
    assert [value(found, "renio_paused") for found in (running, held, after)] == [0, 1, 0]
    began, until, still = (value(found, "renio_held_timestamp_seconds") for found in (running, held, after))
    assert began < until == still < time.time() - LOOK_SECONDS


def test_a_run_that_goes_on_shows_where_from_and_counts_from_here() -> None:
    found = collected(Figures(make_config(steps=500), last_step=200))
    assert (value(found, "renio_step"), value(found, "renio_steps_wanted"), value(found, "renio_steps_total")) == (200, 500, 0)


def test_bounds_are_the_configurations_and_the_disk_is_the_run_directorys(tmp_path: Path) -> None:
    config = make_config(run_dir=str(tmp_path / "run"), max_staleness=3, weighting={"type": "renio", "threshold": 0.7})
    found = collected(Limits(config))
    assert (value(found, "renio_staleness_bound"), value(found, "renio_pivotal_threshold_nats")) == (3, 0.7)
    assert ("renio_disk_free_bytes", ()) not in found, "its directory is not there yet, and another disk's figure would mislead"
    (tmp_path / "run").mkdir()
    found, disk = collected(Limits(config)), shutil.disk_usage(tmp_path)
    assert value(found, "renio_disk_size_bytes") == disk.total
    assert value(found, "renio_disk_free_bytes") == pytest.approx(disk.free, rel=0.05)
