"""The schedule, with engines that only sleep: what runs beside what, and how old a sample may be.

The fakes are those of ``tests/benchmarks/schedule``, which measures what this only checks.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from renio_pipeline.config import RunConfig
from renio_pipeline.metrics.sink import read_jsonl
from tests.benchmarks.schedule.load import Load, Span
from tests.benchmarks.schedule.pools import Fakes, Spans, config_of
from tests.ray.conftest import run

BATCH, STEPS = 32, 4
QUICK = Load(slots=16, sample_seconds=0.05, score_seconds=0.01, train_seconds=0.5, sync_seconds=0.02)
SLOW = Load(slots=16, sample_seconds=0.35, score_seconds=0.01, train_seconds=0.6, sync_seconds=0.02)
Schedule = tuple[int, str]  # max_staleness, in_flight
LOADS = {(0, "drain"): QUICK, (1, "drain"): SLOW, (1, "keep"): replace(SLOW, train_seconds=0.1), (3, "drain"): QUICK}


@dataclass(frozen=True)
class Ran:
    """What the fakes did in a run, and the seconds of each of its steps."""

    spans: Spans
    seconds: list[float]

    def ages(self) -> list[int]:
        """Of each sample's first token, in versions, when it was trained on: step n trains version n - 1."""
        return [_step(s) - 1 - s.first.number for s in self.spans.written]


Runs = dict[Schedule, Ran]


def _step(sample: Span) -> int:
    return sample.id // BATCH + 1


def _config(folder: Path, max_staleness: int, in_flight: str) -> RunConfig:
    keys = [f"steps={STEPS}", f"max_staleness={max_staleness}", f"in_flight={in_flight}"]
    return config_of(folder / f"{max_staleness}-{in_flight}", *keys, generators=2, teachers=2, batch_size=BATCH)


@pytest.fixture(scope="module")
def ran(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run under each schedule, by the same pools."""
    folder = tmp_path_factory.mktemp("schedule")

    async def go() -> Runs:
        found: Runs = {}
        async with Fakes(_config(folder, 0, "drain"), SLOW) as fakes:
            for schedule, load in LOADS.items():
                config = _config(folder, *schedule)
                spans = await fakes.run(config, load)
                found[schedule] = Ran(spans, [line["time/step"] for line in read_jsonl(config.directory / "metrics.jsonl")])
        return found

    return run(go())


@pytest.mark.parametrize("schedule", LOADS, ids=str)
def test_each_sample_is_written_once_and_each_step_trained_once(ran: Runs, schedule: Schedule) -> None:
    spans = ran[schedule].spans
    assert sorted(s.id for s in spans.written) == list(range(STEPS * BATCH))
    assert [s.id for s in spans.trained] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("schedule", LOADS, ids=str)
def test_no_sample_is_older_than_the_bound_which_quick_generators_reach(ran: Runs, schedule: Schedule) -> None:
    ages = ran[schedule].ages()
    assert min(ages) >= 0
    assert max(ages) == schedule[0]


def test_a_step_is_collected_while_the_one_before_it_is_trained(ran: Runs) -> None:
    spans, seconds = ran[1, "drain"].spans, ran[1, "drain"].seconds
    for trained in spans.trained[:-1]:
        assert any(_step(s) > trained.id and s.start < trained.end and s.end > trained.start for s in spans.written)
    one_after_the_other = max(map(SLOW.seconds, range(BATCH))) + SLOW.train_seconds
    assert statistics.median(seconds) < one_after_the_other, seconds
    assert min(seconds) < 0.8 * one_after_the_other, seconds


def test_strictly_on_policy_nothing_is_written_while_a_step_is_trained(ran: Runs) -> None:
    spans = ran[0, "drain"].spans
    assert not [s for s in spans.written for t in spans.trained if s.start < t.end and s.end > t.start]


@pytest.mark.parametrize("in_flight", ["drain", "keep"])
def test_weights_change_beneath_a_response_only_where_in_flight_says_keep(ran: Runs, in_flight: str) -> None:
    changed = [s for s in ran[1, in_flight].spans.written if s.last != s.first]
    assert bool(changed) == (in_flight == "keep")
