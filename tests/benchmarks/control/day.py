"""The run: a driver with everything that it has, over fakes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from actors.control import mailbox
from actors.pools.generators import GeneratorPool
from actors.pools.jobs import Service
from actors.pools.teachers import TeacherPool
from actors.pools.worker import Kind
from renio_pipeline.cli.garbage import spare_all_so_far
from renio_pipeline.config import RunConfig, load
from renio_pipeline.control.commands import Commands, Events, WithEvents, in_background
from renio_pipeline.loop.run import Run
from renio_pipeline.monitoring.prometheus import PrometheusSink
from renio_pipeline.monitoring.sinks import file_sinks
from renio_pipeline.preflight import prepare
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.run_dir.run_log import RunLog
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Stages
from tests.benchmarks.control.fakes import FakeActor, FakeStarts, FakeTrainers, FakeWeighting
from tests.benchmarks.control.watch import Scraper, Watch
from tests.benchmarks.schedule.engines import FakeGenerator, FakeTeacher
from tests.benchmarks.schedule.load import TOKENS, Load
from tests.benchmarks.schedule.watch import Silent

ROOT = Path(__file__).parents[3]
CLIENTS = 3  # that ask for the run's status
ASK_SECONDS = 60.0
IDLE_SECONDS = 300.0  # before the run, to see what heartbeats cost
DEATH_SECONDS = 1200.0  # one generator or teacher in so long


LOAD = Load(slots=8, sample_seconds=60.0, score_seconds=0.5, train_seconds=215.0, sync_seconds=5.0)


@dataclass(frozen=True, kw_only=True)
class Size:
    generators: int = 256
    teachers: int = 64
    steps: int = 392
    batch_size: int = 256
    load: Load = LOAD
    points: int = 98  # at which memory is looked at


@dataclass(frozen=True, kw_only=True)
class Day:
    """What was seen of it so far."""

    watch: Watch
    scraper: Scraper
    samples: int
    statuses: int
    heartbeat_ms: float  # of the loop's CPU in a virtual second in which nothing is done
    page_ms: float  # of CPU, to make the page that is scraped
    restarts: int
    cpu_seconds: dict[str, float]  # by thread


def config_of(size: Size, folder: Path, *overrides: str) -> RunConfig:
    fixed = [
        f"run_dir={folder}", "name=day", f"steps={size.steps}", f"batch_size={size.batch_size}",
        f"max_response_tokens={TOKENS}", "max_staleness=1", "in_flight=keep", "evaluate.problems=0",
        f"data.problems={size.steps * size.batch_size}", f"pools.generator.replicas={size.generators}",
        f"pools.teacher.replicas={size.teachers}", "metrics_port=0", "checkpoint.every=5", "samples.plain=10",
        "samples.keep=20", "faults.teacher_seconds_per_token=1", "faults.generator_seconds_per_token=10",
    ]  # fmt: skip
    return load(ROOT / "configs/demo.yaml", [*fixed, *overrides])


async def day(size: Size, config: RunConfig, so_far: Callable[[Day], None] = lambda found: None) -> Day:
    """Run it, under ``run_at_speed``. ``so_far`` is called whenever memory was looked at."""
    directory = RunDirectory(config)
    endpoint = PrometheusSink(config, "127.0.0.1")
    with RunLog(directory.path / "log.txt") as log, Scraper(int(endpoint.address.rpartition(":")[2])) as scraper:
        events = Events(log.note)
        progress = WithEvents(Silent(), events)
        quarantine = QuarantineLog(directory.path / "samples" / "rejected.jsonl", progress.note)
        service = Service(config=config, quarantine=quarantine, note=log.note)
        budget = PayloadBudget(config.payload.max_bytes, config.batch_size, 0)
        generators, teachers = FakeStarts(FakeGenerator, size.load), FakeStarts(FakeTeacher, size.load)
        pools = {
            "generator": GeneratorPool(Kind(name="generator", start=generators), size.generators, service),
            "teacher": TeacherPool(Kind(name="teacher", start=teachers), size.teachers, service, budget),
        }
        control = mailbox.Control({})
        parts = {"control": [control, events], "endpoint": [endpoint._figures, endpoint._live, endpoint._audience]}
        asked, idle = list[int](), list[float]()

        def seen() -> Day:
            return Day(
                watch=watch,
                scraper=scraper,
                samples=len(watch.cpu) * size.batch_size,
                statuses=len(asked),
                heartbeat_ms=1000 * idle[0],
                page_ms=min(_page_ms(endpoint) for _ in range(3)),
                restarts=sum(pool.workers.restarts for pool in pools.values()),
                cpu_seconds=watch.cpu_by_thread(),
            )

        every = max(1, size.steps // size.points)
        watch = Watch(every=every, run_dir=directory.path, parts=parts, looked=lambda: so_far(seen()))
        sinks = [*file_sinks(config, directory, 0, progress.note, ()), endpoint, watch]
        run = Run(
            config=config,
            prepared=prepare(config),
            stages=Stages(
                generators=pools["generator"],
                teachers=pools["teacher"],
                weighting=FakeWeighting(config),
                trainers=FakeTrainers(size.load, generators, directory.path / "ledger"),
                payload=budget,
                quarantined=quarantine.ids,
                pools=pools,
            ),
            directory=directory,
            progress=progress,
            sinks=sinks,
        )
        for pool in pools.values():
            pool.workers.open()
        await asyncio.gather(*(pool.workers.settled(all_of_them=True) for pool in pools.values()))
        spare_all_so_far()
        cpu = time.thread_time()
        await asyncio.sleep(IDLE_SECONDS)
        idle.append((time.thread_time() - cpu) / IDLE_SECONDS)
        clients = (_ask(control, asked) for _ in range(CLIENTS))
        others = (_deaths([generators, teachers]), endpoint.serve(run))
        async with in_background(_serve(control, Commands(run, events)), *clients, *others):
            await run.run()
        return seen()


def _page_ms(endpoint: PrometheusSink) -> float:
    registry = CollectorRegistry()
    for part in (endpoint._figures, endpoint._live):
        registry.register(part)
    cpu = time.thread_time()
    generate_latest(registry)
    return 1000 * (time.thread_time() - cpu)


async def _serve(control: mailbox.Control, handle: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> None:
    """As ``mailbox.serve`` with an actor."""
    while True:
        ticket, verb, arguments = await control.next()
        await control.answer(ticket, await handle(verb, arguments))


async def _ask(control: mailbox.Control, asked: list[int]) -> None:
    while True:
        await asyncio.sleep(ASK_SECONDS)
        asked.append(len(await control.ask("status", {}, 30.0)))


async def _deaths(pools: list[FakeStarts]) -> None:
    draw = random.Random(0)
    while True:
        await asyncio.sleep(DEATH_SECONDS)
        living: dict[int, FakeActor] = draw.choices(pools, [len(pool.living) for pool in pools])[0].living
        living[draw.randrange(len(living))].die()
