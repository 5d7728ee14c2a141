"""The figures, beside what they should reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.schedule.mixes import BOUND, WIDE_BOUND
from tests.benchmarks.schedule.rows import Row
from tests.benchmarks.schedule.throughput import Throughput, scaling

SCALING = 0.95  # of 16 times one generator's throughput
DRIVER_MS = 1.0  # of the driver's CPU for a sample
NOTE = """* misses its bound. A stage's work is what its pool needs if it is busy all the time;
alone it needs more: at a step's end generators have slots with nothing left to do.
With in_flight drain a sync waits for the longest response under way while all other
slots stand still: generation loses that at every step, whatever max_staleness is."""


def report(rows: Sequence[Row], throughputs: Sequence[Throughput]) -> dict[str, Any]:
    found = zip(throughputs, scaling(throughputs), strict=True)
    return {
        "bounds": {
            "step_over_slowest": BOUND,
            "step_over_slowest_of_64": WIDE_BOUND,
            "scaling": SCALING,
            "driver_ms": DRIVER_MS,
        },
        "steps": [asdict(row) | {"over_slowest": row.ratio, "over_alone": row.step / row.alone} for row in rows],
        "throughput": [asdict(t) | {"scaling": share} for t, share in found],
    }


def show(rows: Sequence[Row], throughputs: Sequence[Throughput]) -> None:
    console = Console(width=110)
    columns = ("generators", "slowest", "max_staleness", "in_flight", "step s", "mean", "/ its work", "/ alone", "driver ms")
    table = Table(*columns, title="a step's time, in the median, over that of its slowest stage")
    for r in rows:
        shares = (f"{share:.2f}{_mark(share <= r.bound or not r.max_staleness)}" for share in (r.ratio, r.step / r.alone))
        schedule = (str(r.generators), r.mix, str(r.max_staleness), r.in_flight)
        cost = f"{r.driver_ms:.2f}{_mark(r.driver_ms <= DRIVER_MS or r.bound == BOUND)}"
        table.add_row(*schedule, f"{r.step:.2f}", f"{r.step_mean:.2f}", *shares, cost)
    console.print(table, NOTE, highlight=False)
    columns = ("generators", "teachers", "in_flight", "samples/s", "/ its slots'", "/ n times one", "ms a sample", "Ray alone")
    table = Table(*columns, title="throughput, and CPU time of the driver, with and without all but Ray's calls")
    for t, share in zip(throughputs, scaling(throughputs), strict=True):
        shares = (f"{share:.3f}{_mark(share >= SCALING)}", f"{t.driver_ms:.2f}{_mark(t.driver_ms <= DRIVER_MS)}")
        shape = (str(t.generators), str(t.teachers), t.in_flight)
        table.add_row(
            *shape,
            f"{t.samples_per_second:.2f}",
            f"{t.samples_per_second / t.slots_per_second:.3f}",
            *shares,
            f"{t.bare_ms:.2f}",
        )
    console.print(table)


def _mark(met: bool) -> str:
    return "" if met else " *"
