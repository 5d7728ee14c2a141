"""What `renio plan` predicts of a step, beside the real loop and pools over engines that sleep (``schedule``)."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import ray
from rich.console import Console
from rich.table import Table

from renio_pipeline.config import RunConfig
from renio_pipeline.planning.rates import GeneratorRate, Rates, TeacherRate, TrainerRate
from renio_pipeline.planning.schedule import replay
from renio_pipeline.planning.workload import Replayed, Split, Work
from renio_pipeline.preflight import prepare
from tests.benchmarks.schedule.load import BATCH_SAMPLES, TOKENS, length_factor
from tests.benchmarks.schedule.mixes import Mix
from tests.benchmarks.schedule.pools import ROOT, Fakes, config_of
from tests.benchmarks.schedule.rows import watched
from tests.benchmarks.schedule.watch import WARM_UP

BOUND = 0.10  # of the step's time
InFlight = Literal["drain", "keep"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A mix of stages under one schedule."""

    mix: Mix
    max_staleness: int = 0
    in_flight: InFlight = "drain"

    @property
    def name(self) -> str:
        return f"{self.mix.name}-{self.mix.generators}x{self.mix.teachers}-{self.max_staleness}-{self.in_flight}"


def _each_way(mix: Mix, *schedules: tuple[int, InFlight]) -> list[Case]:
    return [Case(mix=mix, max_staleness=k, in_flight=how) for k, how in schedules]


ONE = {"generators": 1, "teachers": 1, "batch_size": 32}
WIDE = {"generators": 16, "teachers": 4, "batch_size": 256}
CASES = [
    *_each_way(Mix(name="generation", generate=2.0, score=0.6, train=0.5, **ONE), (0, "drain"), (1, "keep")),
    *_each_way(Mix(name="scoring", generate=1.0, score=2.0, train=0.8), (0, "drain"), (1, "drain")),
    *_each_way(
        Mix(name="generation", generate=2.0, score=1.0, train=0.8, generators=4), (0, "drain"), (1, "drain"), (1, "keep")
    ),
    *_each_way(Mix(name="training", generate=1.2, score=0.8, train=2.0, generators=4), (0, "drain"), (1, "drain")),
    *_each_way(Mix(name="generation", generate=4.0, score=1.2, train=1.2, **WIDE), (0, "drain"), (1, "drain"), (1, "keep")),
]


def predicted(case: Case, prompt_tokens: float, steps: int) -> Replayed:
    """Of the steps that the run counts too. ``prompt_tokens``: they fill a teacher's batch, though no fake reads them."""
    mix, load = case.mix, case.mix.load
    share = TOKENS / (TOKENS + prompt_tokens)
    one = TOKENS / load.sample_seconds
    rates = Rates(
        generator=GeneratorRate(load.slots, {1: one, load.slots: load.slots * one}),
        teacher=TeacherRate(TOKENS / load.score_seconds, BATCH_SAMPLES * TOKENS * share),
        trainer=TrainerRate(1e12, step_seconds=load.train_seconds),
        sync_seconds=load.sync_seconds,
    )

    def lengths(step: int) -> list[float]:
        first = (step - 1) * mix.batch_size
        return [TOKENS * length_factor(i) for i in range(first, first + mix.batch_size)]

    work = Work(lengths=lengths, max_staleness=case.max_staleness, in_flight=case.in_flight)
    return replay(rates, Split(mix.generators, mix.teachers, 1), work, counted=steps, after=WARM_UP)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Predicted and seen, of a step: seconds, and idle shares by pool."""

    case: str
    steps: int
    predicted: float
    seen: float  # median
    spread: tuple[float, float]
    ratios: tuple[float, ...]  # of each step's time, seen over predicted
    predicted_idle: dict[str, float]
    seen_idle: dict[str, float]
    predicted_busy: dict[str, float]  # seconds of a step, on average
    seen_busy: dict[str, float]

    @property
    def error(self) -> float:
        return self.predicted / self.seen - 1

    @property
    def idle_error(self) -> float:
        """The largest."""
        return max(abs(self.predicted_idle[name] - self.seen_idle[name]) for name in self.seen_idle)

    @property
    def busy_error(self) -> float:
        """The largest, over what was predicted. Unlike the step's time it is the same on a machine that has other work."""
        return max(abs(seen / self.predicted_busy[name] - 1) for name, seen in self.seen_busy.items())


async def rows_of(cases: Sequence[Case], steps: int, folder: Path) -> list[Row]:
    """Run cases that have their pools in common, and predict each."""

    def config(case: Case) -> RunConfig:
        mix = case.mix
        return config_of(
            folder / case.name,
            f"max_staleness={case.max_staleness}",
            f"in_flight={case.in_flight}",
            f"steps={WARM_UP + steps + case.max_staleness + 1}",
            generators=mix.generators,
            teachers=mix.teachers,
            batch_size=mix.batch_size,
        )

    rows = []
    first = config(cases[0])
    prompt_tokens = float(np.mean([len(ids) for ids in prepare(first).prompt_ids]))
    async with Fakes(first, cases[0].mix.load) as fakes:
        for case in cases:
            watch, lines = await watched(fakes, config(case), case.mix.load)
            seen, guess = watch.steps(), predicted(case, prompt_tokens, steps)
            # The fakes count a slot's work as the engine's, by the slot; a real engine is busy as long as any is.
            idle = {"generator": guess.slots_idle, "teacher": guess.idle["teacher"], "trainer": guess.idle["trainer"]}
            row = Row(
                case=case.name,
                steps=len(seen),
                predicted=statistics.median(guess.steps),
                seen=statistics.median(seen),
                spread=(min(seen), max(seen)),
                ratios=tuple(s / p for s, p in zip(seen, guess.steps, strict=True)),
                predicted_idle=idle,
                seen_idle={n: statistics.fmean(line[f"idle/{n}"] for line in lines) for n in idle},
                predicted_busy={name: (1 - share) * guess.step for name, share in idle.items()},
                seen_busy={n: statistics.fmean((1 - line[f"idle/{n}"]) * line["time/step"] for line in lines) for n in idle},
            )
            rows.append(row)
            print(f"{row.case}: predicted {row.predicted:.2f} s, seen {row.seen:.2f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5, help="that are measured, of each case")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases in whose name this is")
    parser.add_argument("--json", type=Path, default=ROOT / "runs/bench-plan.json")
    args = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = [row for some in _by_mix(args.only) for row in asyncio.run(rows_of(some, args.steps, Path(folder)))]
    finally:
        ray.shutdown()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(
        json.dumps([asdict(r) | {"error": r.error, "idle_error": r.idle_error} for r in rows], indent=1) + "\n"
    )
    show(rows)


def _by_mix(only: str) -> list[list[Case]]:
    cases = [case for case in CASES if only in case.name]
    return [[case for case in cases if case.mix == mix] for mix in dict.fromkeys(case.mix for case in cases)]


def show(rows: Sequence[Row]) -> None:
    columns = ("slowest-pools-staleness-in_flight", "predicted s", "seen s (least, most)", "error", "idle: most it is off")
    table = Table(*columns, title="a step as `renio plan` predicts it, and with engines that sleep")
    for r in rows:
        missed = abs(r.error) > BOUND
        spread = f"{r.seen:.2f} ({r.spread[0]:.2f}, {r.spread[1]:.2f})"
        table.add_row(r.case, f"{r.predicted:.2f}", spread, f"{r.error:+.1%}{' *' if missed else ''}", f"{r.idle_error:.3f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
