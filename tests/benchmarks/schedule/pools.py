"""The pools of a run, as ``actors.launch`` makes them but for their engines."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import ray

from actors.cluster.placement import GroupLease, start_in_group
from actors.engines.generator import WriteRequest
from actors.packed_messages import PackedList, pack, unpack
from actors.pools.generators import GeneratorPool
from actors.pools.jobs import Service
from actors.pools.teachers import TeacherPool
from actors.pools.weighting import WeightingStage
from actors.pools.worker import CONTROL, Kind, Lease
from actors.trainer.group import TrainerGroup
from actors.trainer.supervisor import Trainers
from renio_pipeline.config import RunConfig, load
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import JsonlSink, Sink
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import ScoreRequest
from tests.benchmarks.schedule.engines import FakeGenerator, FakeRank, FakeTeacher, Sleeper
from tests.benchmarks.schedule.hosts import Guest, Host, Room
from tests.benchmarks.schedule.load import BATCH_SAMPLES, TOKENS, Load, Span
from tests.benchmarks.schedule.watch import Silent

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, kw_only=True)
class Spans:
    """All that the fakes of a run did."""

    written: list[Span]
    trained: list[Span]


def config_of(folder: Path, *overrides: str, generators: int, teachers: int, batch_size: int) -> RunConfig:
    fixed = [
        f"run_dir={folder}", f"batch_size={batch_size}", f"max_response_tokens={TOKENS}", "evaluate.problems=0",
        "data.problems=512", "pools.weighting.cpus=0", f"pools.generator.replicas={generators}",
        f"pools.teacher.replicas={teachers}",
    ]  # fmt: skip
    return load(ROOT / "configs/demo.yaml", [*fixed, *overrides])


class Fakes:
    """The pools of a run, as ``actors.launch`` makes them but for their engines. Usage: ``async with`` it, and ``run``."""

    def __init__(self, config: RunConfig, load: Load, *, each_process: int = 1) -> None:
        """``config``: of the pools' sizes, and of all that the runs have in common. ``each_process``: how many fakes it has."""
        self._load, self._actors, self._each_process = load, list[Any](), each_process
        self._service = Service(config=config, quarantine=QuarantineLog(None, print), note=print)
        self._budget = PayloadBudget(config.payload.max_bytes, config.batch_size, 0)
        generators, teachers = config.pools.generator.replicas, config.pools.teacher.replicas
        self.generators = GeneratorPool(self._kind("generator", FakeGenerator), generators, self._service)
        self.teachers = TeacherPool(self._kind("teacher", FakeTeacher), teachers, self._service, self._budget)
        self.weighting = WeightingStage(config, self._service)
        self._workers = (self.generators.workers, self.teachers.workers, self.weighting.workers)
        self._prepared: Prepared = prepare(config)

    async def __aenter__(self) -> Self:
        for workers in self._workers:
            workers.open()
        await asyncio.gather(*(workers.settled(all_of_them=True) for workers in self._workers))
        return self

    async def __aexit__(self, *error: object) -> None:
        for workers in self._workers:
            workers.close()

    async def run(self, config: RunConfig, load: Load, sinks: Sequence[Sink] = ()) -> Spans:
        """A whole run with a trainer of its own. ``config`` may differ from the pools' in what the loop and the syncs ask."""
        await asyncio.gather(*(actor.become.remote(load) for actor in self._actors))
        self._budget.reset()
        rank = ray.remote(num_cpus=0, concurrency_groups={CONTROL: 1})(FakeRank).remote(load)
        service = replace(self._service, config=config)
        trainers = Trainers(lambda point: TrainerGroup([rank], config, 256, None), self.generators, None, service)
        directory = RunDirectory(config)
        stages = Stages(
            generators=self.generators,
            teachers=self.teachers,
            weighting=self.weighting,
            trainers=trainers,
            payload=self._budget,
            pools={"generator": self.generators, "teacher": self.teachers},
        )
        await trainers.begin(ResumePoint())
        try:
            await Run(
                config=config,
                prepared=self._prepared,
                stages=stages,
                directory=directory,
                progress=Silent(),
                sinks=[JsonlSink(directory.metrics), *sinks],
            ).run()
            trained, *done = await asyncio.gather(rank.spans.remote(), *(actor.spans.remote() for actor in self._actors))
        finally:
            await trainers.end()
        return Spans(written=[span for of_one in done for span in of_one], trained=trained)

    async def bare_ms(self, each: int) -> float:
        """The driver's CPU for a sample if it does nothing but Ray's calls: ``each`` samples by each slot of each generator."""
        generators = [worker.actor for worker in self.generators.workers.serving]
        teachers = [worker.actor for worker in self.teachers.workers.serving]
        seconds = time.process_time()
        each *= self._load.slots
        await asyncio.gather(
            *(
                _write_and_score(generator, teachers[i % len(teachers)], range(i * each, (i + 1) * each), self._load.slots)
                for i, generator in enumerate(generators)
            )
        )
        return 1000 * (time.process_time() - seconds) / (each * len(generators))

    def _kind(self, name: str, fake: type[Sleeper]) -> Kind:
        options, each = {"num_cpus": 0, "num_gpus": 0}, self._each_process
        remote = ray.remote(max_concurrency=1000)(fake if each == 1 else Host)
        hosts: dict[int, GroupLease] = {}

        def start(slot: int) -> Lease:
            if each == 1:
                made: Lease = start_in_group(remote, (self._load,), options)
            else:
                number, place = divmod(slot, each)
                if not place:
                    hosts[number] = start_in_group(remote, (fake, self._load, each), options)
                made = Room(hosts[number], Guest(hosts[number].actor, place))
            self._actors.append(made.actor)
            return made

        return Kind(name=name, start=start)


async def _write_and_score(generator: Any, teacher: Any, sample_ids: Sequence[int], slots: int) -> None:
    """A new sample for each that ends, and a batch of them to score after every ``BATCH_SAMPLES``."""
    prompt_ids, waiting = np.zeros(12, np.int32), list[ScoreRequest]()
    left, under_way = iter(sample_ids), 0
    free = slots
    while True:
        asks = [
            WriteRequest(sample_id=i, prompt_ids=prompt_ids, seed=i, max_tokens=TOKENS, temperature=1.0, top_p=1.0, top_k=0)
            for i in itertools.islice(left, free)
        ]
        under_way += len(asks)
        if not under_way:
            return
        ended = unpack(await generator.exchange.remote(pack(asks)))
        free = len(ended)
        under_way -= free
        waiting += [ScoreRequest(sample_id=w.sample_id, prompt_ids=prompt_ids, response_ids=w.token_ids) for w in ended]
        if len(waiting) >= BATCH_SAMPLES:
            await teacher.score.remote(PackedList(waiting))
            waiting = []
