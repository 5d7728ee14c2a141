"""A short and narrow day of ``tests.benchmarks.control``: the driver with all its parts, over fakes and a clock that skips."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from renio_pipeline.ledger import history, prove_exactly_once
from renio_pipeline.run_dir import ledger_files
from renio_pipeline.run_dir.batches import read_batches, step_files
from tests.benchmarks.control.clock import REAL, run_at_speed
from tests.benchmarks.control.day import LOAD, Size, config_of, day
from tests.benchmarks.control.watch import Slope, deep_size

SMALL = Size(generators=6, teachers=2, steps=40, batch_size=16, load=LOAD, points=20)


def test_hours_pass_in_no_time_and_threads_have_theirs() -> None:
    async def scene() -> tuple[float, bool]:
        began, loop = time.monotonic(), asyncio.get_running_loop()
        await asyncio.sleep(7200)
        thread = loop.run_in_executor(None, REAL)
        timer = asyncio.create_task(asyncio.sleep(3600))
        await thread
        early = not timer.done()
        timer.cancel()
        return time.monotonic() - began, early

    began = REAL()
    passed, early = run_at_speed(scene())
    assert 7200 <= passed < 7300
    assert early, "an hour was skipped while a thread worked"
    assert REAL() - began < 60
    assert abs(time.monotonic() - REAL()) < 1e9, "the clocks are as before"


def test_a_line_that_rises_is_seen_to_rise_and_a_flat_one_is_not() -> None:
    hours = [0.5 * i for i in range(20)]
    rising = Slope.of(hours, [100 + 3 * x + (-1) ** i for i, x in enumerate(hours)])
    assert rising.low <= 3 <= rising.high
    assert rising.low > 0
    flat = Slope.of(hours, [100 + (-1) ** i for i in range(20)])
    assert flat.low < 0 < flat.high


def test_the_size_of_what_grows_grows() -> None:
    assert deep_size([[0] * 1000]) - deep_size([[0]]) > 7000


@pytest.mark.slow
def test_a_day_is_exactly_once_and_its_records_and_its_parts_stay_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_files, "FULL_BYTES", 1000)
    found = run_at_speed(day(SMALL, config_of(SMALL, tmp_path / "run", "samples.plain=4", "samples.keep=8")))
    assert found.watch.hours[-1] > 2
    assert found.restarts >= 3, "workers die on the way"
    assert found.statuses > 100
    prove_exactly_once(tmp_path / "run")
    steps = list(range(1, SMALL.steps + 1))
    assert list(history(tmp_path / "run")) == list(read_batches(tmp_path / "run")) == steps
    assert list(step_files(tmp_path / "run")) == steps[-8:]
    assert sum(path.name.endswith(".zst") for path in (tmp_path / "run/samples").iterdir()) == 4
    assert any(path.name.endswith(".zst") for path in (tmp_path / "run/ledger").iterdir())
    last = {name: values[-1] - values[len(values) // 2] for name, values in found.watch.found.items()}
    assert last["endpoint, kB"] < 5
    assert last["control, kB"] < 5  # the latest events, up to their number
    assert last["threads"] <= 2
    assert last["files open"] <= 8
