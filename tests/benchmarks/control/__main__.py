"""``python -m tests.benchmarks.control``: see the package."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import control
from tests.benchmarks.control.clock import run_at_speed
from tests.benchmarks.control.day import ROOT, Day, Size, config_of, day

SCRAPE_SECONDS = 0.1
DRIVER_MS = 1.0  # of the driver's CPU for a sample


def main() -> None:
    parser = argparse.ArgumentParser(description=control.__doc__)
    parser.add_argument("--quick", action="store_true", help="an hour of it, to test the benchmark itself")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/bench-control.json")
    args = parser.parse_args()
    size = Size(steps=20, points=10) if args.quick else Size()
    args.json.parent.mkdir(parents=True, exist_ok=True)

    def so_far(found: Day) -> None:
        args.json.write_text(json.dumps(report(found), indent=1) + "\n")

    with tempfile.TemporaryDirectory() as name:
        found = run_at_speed(day(size, config_of(size, Path(name) / "run"), so_far))
    so_far(found)
    show(report(found))


def report(found: Day) -> dict[str, Any]:
    """The figures up to the last time that memory was looked at; what is left behind at any time is whole."""
    scrapes = found.scraper.seconds
    each = [1000 * (b - a) * len(found.watch.cpu) / found.samples for a, b in pairwise(found.watch.cpu)]
    return {
        "samples": found.samples, "hours": found.watch.hours[-1], "statuses": found.statuses, "replaced": found.restarts,
        "scrapes": len(scrapes), "scrape_bytes": found.scraper.bytes, "page_cpu_ms": found.page_ms,
        "scrape_seconds": {"median": found.scraper.quantile(0.5), "p95": found.scraper.quantile(0.95), "most": max(scrapes)},
        "heartbeat_ms_a_second": found.heartbeat_ms, "seconds_a_sample": 3600 * found.watch.hours[-1] / found.samples,
        "loop_ms_a_sample": {"median": statistics.median(each), "least": min(each), "most": max(each)},
        "ms_a_sample": {name: 1000 * seconds / found.samples for name, seconds in found.cpu_seconds.items()},
        "slopes": {name: asdict(slope) for name, slope in found.watch.slopes().items()},
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    console = Console(width=110)
    table = Table("what", "mean", "an hour", "95 %", title=f"{found['samples']} samples in {found['hours']:.1f} virtual hours")
    for name, s in found["slopes"].items():
        table.add_row(name, f"{s['mean']:.5g}", f"{s['each_hour']:+.3g}", f"{s['low']:+.3g} to {s['high']:+.3g}")
    console.print(table)
    beats = found["heartbeat_ms_a_second"]
    scrape, loop = found["scrape_seconds"], found["loop_ms_a_sample"]
    console.print(
        f"scrape: {1000 * scrape['median']:.0f} ms (95 %: {1000 * scrape['p95']:.0f}, most {1000 * scrape['most']:.0f}; asked: "
        f"95 % within {1000 * SCRAPE_SECONDS:.0f}) beside a loop that never rests, {found['scrapes']} times\n"
        f"its page: {found['scrape_bytes']} bytes, {found['page_cpu_ms']:.0f} ms of CPU\n"
        f"driver's loop: {loop['median']:.2f} ms of CPU a sample ({loop['least']:.2f} to {loop['most']:.2f}; asked: "
        f"{DRIVER_MS:g} without heartbeats, which take {beats:.2f} ms a virtual second, that is "
        f"{beats * found['seconds_a_sample']:.2f} ms a sample here); by thread: {found['ms_a_sample']}\n"
        f"{found['replaced']} workers were replaced, and {found['statuses']} statuses answered"
    )


if __name__ == "__main__":
    main()
