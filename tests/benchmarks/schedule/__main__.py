"""``python -m tests.benchmarks.schedule``: see the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import tempfile
from pathlib import Path

import ray

from tests.benchmarks import schedule
from tests.benchmarks.schedule.mixes import MIXES
from tests.benchmarks.schedule.pools import ROOT
from tests.benchmarks.schedule.rows import Row, rows_of, wide_rows
from tests.benchmarks.schedule.table import report, show
from tests.benchmarks.schedule.throughput import SHAPES, Throughput, throughput_of


def main() -> None:
    parser = argparse.ArgumentParser(description=schedule.__doc__)
    parser.add_argument("--steps", type=int, default=5, help="that are measured, of each schedule")
    parser.add_argument("--only", choices=("small", "wide", "throughput"), help="of the three parts")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/bench-schedule.json")
    args = parser.parse_args()
    # Ray's workers give way to everything else by default: fakes that wake late would say nothing of the schedule.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        rows, throughputs = asyncio.run(measure(args.steps, args.only))
    finally:
        ray.shutdown()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report(rows, throughputs), indent=1) + "\n")
    show(rows, throughputs)


async def measure(steps: int, only: str | None = None) -> tuple[list[Row], list[Throughput]]:
    """``only``: a part, see the command line."""
    rows, found = list[Row](), list[Throughput]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only in (None, "small"):
            rows += [row for mix in MIXES for row in await rows_of(mix, steps, folder)]
        if only in (None, "wide"):
            rows += await wide_rows(steps, folder)
        if only in (None, "throughput"):
            found += [await throughput_of(*shape, max(2, steps // 2), folder) for shape in SHAPES]
    return rows, found


if __name__ == "__main__":
    main()
