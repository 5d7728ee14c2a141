"""What many generators write, and what it costs the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.schedule.load import BATCH_SAMPLES, Load
from tests.benchmarks.schedule.pools import Fakes, config_of
from tests.benchmarks.schedule.rows import watched
from tests.benchmarks.schedule.watch import WARM_UP

SHAPES = ((1, 1), (16, 4))  # generators and teachers


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What some generators wrote, and the driver took for it."""

    generators: int
    teachers: int
    in_flight: str
    steps: int
    samples_per_second: float
    slots_per_second: float  # samples too, if no slot ever waited
    driver_ms: float  # CPU time of the driver's process, of a sample
    bare_ms: float  # the same of a process that does nothing but Ray's calls


async def throughput_of(generators: int, teachers: int, steps: int, folder: Path) -> Throughput:
    """Every generator gets as many samples a step; ``steps`` of them count."""
    load, each = Load(slots=8, sample_seconds=1.0, score_seconds=0.02, train_seconds=0.5), 32
    config = config_of(
        folder / f"{generators}",
        "max_staleness=1",
        "in_flight=keep",
        f"steps={WARM_UP + steps + 2}",
        generators=generators,
        teachers=teachers,
        batch_size=each * generators,
    )
    async with Fakes(config, load) as fakes:
        bare = await fakes.bare_ms(BATCH_SAMPLES)
        watch, _ = await watched(fakes, config, load)
    samples = len(watch.steps()) * config.batch_size
    return Throughput(
        generators=generators,
        teachers=teachers,
        in_flight=config.in_flight,
        steps=len(watch.steps()),
        samples_per_second=samples / sum(watch.steps()),
        slots_per_second=generators * load.slots / load.sample_seconds,
        driver_ms=1000 * watch.cpu_seconds() / samples,
        bare_ms=bare,
    )


def scaling(throughputs: Sequence[Throughput]) -> list[float]:
    """Of each throughput, the share that it is of as many times one generator's, under the same schedule."""
    one = {t.in_flight: t.samples_per_second for t in throughputs if t.generators == 1}
    return [t.samples_per_second / (t.generators * one[t.in_flight]) for t in throughputs]
