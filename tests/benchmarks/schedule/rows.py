"""A step's time under a schedule, over that of its slowest stage."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from renio_pipeline.cli.garbage import spare_all_so_far
from renio_pipeline.config import RunConfig
from renio_pipeline.metrics.sink import read_jsonl
from tests.benchmarks.schedule.load import Load
from tests.benchmarks.schedule.mixes import BOUND, WIDE, Mix
from tests.benchmarks.schedule.pools import Fakes, config_of
from tests.benchmarks.schedule.watch import WARM_UP, Watch

EACH_PROCESS = 8  # of those fakes: 80 processes have no room on a machine with two cores


SCHEDULES = ((0, "drain"), (1, "drain"))  # max_staleness, in_flight
WIDE_SCHEDULE = (1, "keep")
REMEDIES = ((1, "keep"), (2, "drain"))  # where the last of them misses its bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """A mix under one schedule, in seconds."""

    mix: str
    generators: int
    teachers: int
    max_staleness: int
    in_flight: str
    steps: int
    step: float  # median
    step_mean: float
    slowest: float  # work of the slowest stage
    alone: float  # the slowest stage by itself
    bound: float  # of the step over the slowest stage
    staleness: float  # mean, of the oldest sample of a step
    driver_ms: float  # CPU time of the driver's process, of a sample

    @property
    def ratio(self) -> float:
        return self.step / self.slowest


async def watched(fakes: Fakes, config: RunConfig, load: Load) -> tuple[Watch, list[dict[str, float]]]:
    """A run, and what its steps were like that count."""
    watch = Watch(last=config.steps - config.max_staleness - 1)
    spare_all_so_far()  # as the command does
    await fakes.run(config, load, [watch])
    return watch, read_jsonl(config.directory / "metrics.jsonl")[WARM_UP : watch.last]


def config_of_mix(mix: Mix, max_staleness: int, in_flight: str, steps: int, folder: Path) -> RunConfig:
    """``steps``: that count."""
    return config_of(
        folder / f"{mix.name} {mix.generators} {max_staleness} {in_flight}",
        f"max_staleness={max_staleness}",
        f"in_flight={in_flight}",
        f"steps={WARM_UP + steps + max_staleness + 1}",
        generators=mix.generators,
        teachers=mix.teachers,
        batch_size=mix.batch_size,
    )


async def rows_of(mix: Mix, steps: int, folder: Path) -> list[Row]:
    """A mix under each schedule, ``steps`` of which count."""
    rows: list[Row] = []
    async with Fakes(config_of_mix(mix, *SCHEDULES[0], steps, folder), mix.load) as fakes:
        for schedule in SCHEDULES + REMEDIES:
            if schedule in SCHEDULES or rows[len(SCHEDULES) - 1].ratio > BOUND:
                rows.append(await _row(fakes, mix, *schedule, steps, folder))
    return rows


async def wide_rows(steps: int, folder: Path, mixes: Sequence[Mix] = WIDE) -> list[Row]:
    """Mixes of one size, one after another by the same fakes."""
    async with Fakes(config_of_mix(mixes[0], *WIDE_SCHEDULE, steps, folder), mixes[0].load, each_process=EACH_PROCESS) as fakes:
        return [await _row(fakes, mix, *WIDE_SCHEDULE, steps, folder) for mix in mixes]


async def _row(fakes: Fakes, mix: Mix, max_staleness: int, in_flight: str, count: int, folder: Path) -> Row:
    watch, lines = await watched(fakes, config_of_mix(mix, max_staleness, in_flight, count, folder), mix.load)
    steps = watch.steps()
    return Row(
        mix=mix.name,
        generators=mix.generators,
        teachers=mix.teachers,
        max_staleness=max_staleness,
        in_flight=in_flight,
        steps=len(steps),
        step=statistics.median(steps),
        step_mean=statistics.fmean(steps),
        slowest=mix.slowest,
        alone=mix.alone(),
        bound=mix.bound,
        staleness=statistics.fmean(line["staleness/max"] for line in lines),
        driver_ms=1000 * watch.cpu_seconds() / (len(steps) * mix.batch_size),
    )
