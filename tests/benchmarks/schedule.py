"""How well the schedule overlaps its stages, and what the driver costs: the real loop and pools, over engines that sleep.

Generators, teachers and the trainer rank are fakes, named so, whose engines take the time that they are told to and nothing
more: a generator has a fixed number of slots, a teacher scores one batch at a time, a rank trains, and a sync holds every
generator still. All the rest is what a run uses: `Run`, the pools, the weighting actor, the trainer group and its syncs.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import ray
from rich.console import Console
from rich.table import Table

from actors.generation import Ended, WriteRequest, Written
from actors.generator_pool import GeneratorPool
from actors.outbox import Outbox
from actors.parcel import Parcel, pack, unpack
from actors.placement import GroupLease, lease
from actors.pool import Service
from actors.rank_checkpoint import WriteState
from actors.teacher_pool import TeacherPool
from actors.trainer_group import TrainerGroup
from actors.trainers import Trainers
from actors.training import CONTROL, RankReport
from actors.weight_sync import SyncReceipt
from actors.weighting import WeightingStage
from actors.workers import Kind, Lease
from renio_pipeline.budget import PayloadBudget
from renio_pipeline.config import RunConfig, load
from renio_pipeline.evaluate import Evaluation
from renio_pipeline.garbage import spare_all_so_far
from renio_pipeline.metrics import JsonlSink, Sink, read_jsonl
from renio_pipeline.pipeline import Stages
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.rejected import RejectedLog
from renio_pipeline.resume import ResumePoint
from renio_pipeline.run import Run
from renio_pipeline.rundir import RunDirectory
from renio_pipeline.types import FIRST_VERSION, ScoreRequest, TrainSample, Version

ROOT = Path(__file__).parents[2]
WARM_UP = 3  # steps left out: the pipeline fills; at the end as many as are collected ahead, for it empties
TOKENS = 100  # of a response, on average
CYCLE = 32  # samples whose lengths are, together, always the same
SPREAD = 0.5  # sigma of the log-normal lengths: the longest of a cycle is 2.6 times the mean
BATCH_SAMPLES = 8  # that a teacher scores at a time, on average

SHAPES = ((1, 1), (16, 4))  # generators and teachers
BOUND = 1.10  # of the step's time over its slowest stage's
WIDE_BOUND = 1.05  # the same where there are 64 generators, and weights change beneath what is under way
EACH_PROCESS = 8  # of those fakes: 80 processes have no room on a machine with two cores
SCALING = 0.95  # of 16 times one generator's throughput
DRIVER_MS = 1.0  # of the driver's CPU for a sample
NOTE = """* misses its bound. A stage's work is what its pool needs if it is busy all the time;
alone it needs more: at a step's end generators have slots with nothing left to do.
With in_flight drain a sync waits for the longest response under way while all other
slots stand still: generation loses that at every step, whatever max_staleness is."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the engines do, in seconds."""

    slots: int = 8  # of a generator
    sample_seconds: float = 0.5  # of a response of mean length
    score_seconds: float = 0.03  # of such a response too
    train_seconds: float = 1.0  # of a step
    sync_seconds: float = 0.05

    def seconds(self, sample_id: int) -> float:
        """To write this response."""
        return self.sample_seconds * length_factor(sample_id)


def length_factor(sample_id: int) -> float:
    """A response's length over the mean one's: log-normal, with the same 32 values in each 32 ids, in an order of their own."""
    quantiles = (np.arange(CYCLE) + 0.5) / CYCLE
    lengths = np.exp(SPREAD * np.array([statistics.NormalDist().inv_cdf(q) for q in quantiles]))
    order = np.random.default_rng(sample_id // CYCLE).permutation(CYCLE)
    return float((lengths / lengths.mean())[order[sample_id % CYCLE]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a fake did, and when: ``time.time()``, which is the same for every process of a machine."""

    id: int  # of the sample, or of the trained step
    start: float
    end: float
    first: Version = FIRST_VERSION  # the weights at the start
    last: Version = FIRST_VERSION  # and at the end


class Sleeper:
    """What fakes of both kinds answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._busy = 0.0
        self._done: list[Span] = []

    async def ready(self) -> int:
        return 1

    async def ping(self) -> int:
        return os.getpid()

    async def busy_seconds(self) -> float:
        return self._busy

    async def abandon(self) -> None:
        raise NotImplementedError("no rank is lost here")

    async def become(self, load: Load) -> None:
        """Take other times from now on; the slots stay."""
        self._load = load

    async def spans(self) -> list[Span]:
        """All since the last call."""
        done, self._done = self._done, []
        return done


class FakeGenerator(Sleeper):
    """Writes nothing of meaning; has ``slots`` responses under way at a time, each of which takes its own time."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._slots = asyncio.Semaphore(load.slots)
        self._version, self._held = FIRST_VERSION, 0.0
        self._outbox: Outbox[Ended] = Outbox()
        self._writing: set[asyncio.Task[None]] = set()

    async def exchange(self, packed: bytes) -> bytes:
        requests: list[WriteRequest] = unpack(packed)
        self._writing |= {asyncio.create_task(self._write(request)) for request in requests}
        return pack(await self._outbox.take())

    async def take_weights(self, version: Version) -> None:
        """Hold still for the time of a sync, and go on with new weights."""
        await asyncio.sleep(self._load.sync_seconds)
        self._held += self._load.sync_seconds
        self._version = version

    async def _write(self, request: WriteRequest) -> None:
        async with self._slots:
            first, start = self._version, time.time()
            await self._work(self._load.seconds(request.sample_id))
            last, end = self._version, time.time()
        self._busy += (end - start) / self._load.slots
        self._done.append(Span(id=request.sample_id, start=start, end=end, first=first, last=last))
        tokens = max(1, round(TOKENS * length_factor(request.sample_id)))
        written = Written(
            sample_id=request.sample_id, token_ids=np.arange(tokens, dtype=np.int32) % 90 + 40,
            logprobs=np.full(tokens, -1.0, np.float32), stop_reason="stop", version=first, last_version=last,
        )  # fmt: skip
        self._outbox.put(written, end - start, request.slack)
        self._writing.discard(asyncio.current_task())

    async def _work(self, seconds: float) -> None:
        """Sleep so long, and as long again as syncs held the engine meanwhile."""
        while seconds > 0:
            held = self._held
            await asyncio.sleep(seconds)
            seconds = self._held - held


class FakeTeacher(Sleeper):
    """Scores every token alike, one batch at a time, each for the time of its tokens."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._engine = asyncio.Lock()

    async def score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], None]:
        seconds = sum(len(r.response_ids) for r in requests) * self._load.score_seconds / TOKENS
        async with self._engine:
            start = time.time()
            await asyncio.sleep(seconds)
            self._busy += time.time() - start
        return Parcel(np.full(len(r.response_ids), -1.1, np.float32) for r in requests), None


class Host:
    """Several fakes of a kind in one process, where the machine has no room for a process each."""

    def __init__(self, kind: type[Sleeper], load: Load, count: int) -> None:
        self._fakes = [kind(load) for _ in range(count)]

    async def call(self, place: int, verb: str, *args: Any) -> Any:
        return await getattr(self._fakes[place], verb)(*args)


@dataclass(frozen=True)
class Guest:
    """A fake in a Host, as if it were an actor: each call of it is one to the host."""

    host: Any
    place: int

    def __getattr__(self, verb: str) -> Verb:
        if verb.startswith("__"):
            raise AttributeError(verb)
        return Verb(self, verb)


@dataclass(frozen=True)
class Verb:
    guest: Guest
    name: str

    def remote(self, *args: Any) -> Any:
        return self.guest.host.call.remote(self.guest.place, self.name, *args)


@dataclass(frozen=True)
class Room:
    """The lease of a guest: the first one's ends the host."""

    lease: GroupLease
    actor: Guest

    def placed(self) -> bool:
        return self.lease.placed()

    def end(self, pid: int) -> None:
        if not self.actor.place:
            self.lease.end(pid)


class FakeRank:
    """The only trainer rank: sleeps for a step, and tells the generators when new weights come."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._generators: list[Any] = []
        self._done: list[Span] = []

    def ping(self) -> int:
        return os.getpid()

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def setup(self, address: str, port: int) -> None:
        pass

    def connect(self, generators: list[Any], *about_them: Any) -> None:
        self._generators = generators

    def forward_backward(self, micro_batches: list[list[TrainSample]], *, step: int, **how: Any) -> RankReport:
        start = time.time()
        time.sleep(self._load.train_seconds)
        self._done.append(Span(id=step, start=start, end=time.time()))
        tokens = sum(sample.tokens for batch in micro_batches for sample in batch)
        return RankReport(
            loss=1.0, divergence=1.0, tokens=tokens, padded_tokens=tokens, mismatch_sum=0.0, mismatch_max=0.0,
            response_tokens=tokens, busy_seconds=self._load.train_seconds,
        )  # fmt: skip

    def optimizer_step(self, step: int, ledger: str | None) -> dict[str, float]:
        return {"grad_norm": 1.0, "lr": 1e-6, "busy_seconds": 0.0}

    def publish(self, version: Version) -> SyncReceipt:
        start = time.perf_counter()
        ray.get([generator.take_weights.remote(version) for generator in self._generators])
        return SyncReceipt(
            version=version, bytes=0, publish_seconds=0.0, receive_seconds=0.0, seconds=time.perf_counter() - start
        )

    def save(self, folder: str) -> None:
        Path(folder, "weights").write_text("w")

    def written(self) -> WriteState:
        return WriteState(done=True)

    def spans(self) -> list[Span]:
        return self._done


@dataclass
class Watch(Sink):
    """A sink that notes when each step ended, and how much CPU time the driver had taken by then."""

    last: int  # step that counts: the pools are full up to there
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if WARM_UP <= step <= self.last:
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())

    def steps(self) -> list[float]:
        """Seconds of each step that counts."""
        return [b - a for a, b in itertools.pairwise(self.wall)]

    def cpu_seconds(self) -> float:
        """The driver's, in those steps."""
        return self.cpu[-1] - self.cpu[0]


class Silent:
    """Nobody watches, but what is worth a word here is worth a look."""

    def note(self, text: str) -> None:
        if not text.startswith("checkpoint "):
            print(text)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        pass

    def evaluation(self, step: int, result: Evaluation) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Spans:
    """All that the fakes of a run did."""

    written: list[Span]
    trained: list[Span]


def config_of(load_: Load, folder: Path, *overrides: str, generators: int, teachers: int, batch_size: int) -> RunConfig:
    fixed = [
        f"run_dir={folder}", f"batch_size={batch_size}", f"max_response_tokens={TOKENS}", "evaluate.problems=0",
        "data.problems=512", f"generator.engine.max_num_seqs={load_.slots}", "pools.weighting.cpus=0",
        f"teacher.max_batch_tokens={BATCH_SAMPLES * TOKENS}", f"pools.generator.replicas={generators}",
        f"pools.teacher.replicas={teachers}",
    ]  # fmt: skip
    return load(ROOT / "configs/demo.yaml", [*fixed, *overrides])


class Fakes:
    """The pools of a run, as ``actors.launch`` makes them but for their engines. Usage: ``async with`` it, and ``run``."""

    def __init__(self, config: RunConfig, load: Load, *, each_process: int = 1) -> None:
        """``config``: of the pools' sizes, and of all that the runs have in common. ``each_process``: how many fakes it has."""
        self._load, self._actors, self._each_process = load, list[Any](), each_process
        self._service = Service(config=config, rejected=RejectedLog(None, print), note=print)
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
            generators=self.generators, teachers=self.teachers, weighting=self.weighting, trainers=trainers,
            payload=self._budget, pools={"generator": self.generators, "teacher": self.teachers},
        )  # fmt: skip
        await trainers.begin(ResumePoint())
        try:
            await Run(
                config=config, prepared=self._prepared, stages=stages, directory=directory, progress=Silent(),
                sinks=[JsonlSink(directory.metrics), *sinks],
            ).run()  # fmt: skip
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
                made: Lease = lease(remote, (self._load,), options)
            else:
                number, place = divmod(slot, each)
                if not place:
                    hosts[number] = lease(remote, (fake, self._load, each), options)
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
            await teacher.score.remote(Parcel(waiting))
            waiting = []


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A step's stages, in seconds of work of a whole pool."""

    name: str
    generate: float
    score: float
    train: float
    sync: float = 0.05
    generators: int = 2
    teachers: int = 2
    slots: int = 8
    batch_size: int = 64

    @property
    def slowest(self) -> float:
        return max(self.generate, self.score, self.train)

    @property
    def load(self) -> Load:
        each = self.generate * self.generators * self.slots / self.batch_size
        return Load(
            slots=self.slots, sample_seconds=each, score_seconds=self.score * self.teachers / self.batch_size,
            train_seconds=self.train, sync_seconds=self.sync,
        )  # fmt: skip

    @property
    def bound(self) -> float:
        return WIDE_BOUND if self.generators > 16 else BOUND

    def alone(self) -> float:
        """Seconds of the slowest stage where nothing else is done: at its end, generators have slots without a sample."""
        load, size = self.load, self.batch_size
        steps = ([load.seconds(i) for i in range(first, first + size)] for first in range(0, 8 * size, size))
        generate = statistics.fmean(makespan(step, self.generators * self.slots) for step in steps)
        return max(generate, self.score, self.train)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Until the last one ends, each begun in its turn as soon as a slot is free."""
    ends = [0.0] * slots
    for s in seconds:
        heapq.heapreplace(ends, ends[0] + s)
    return max(ends)


MIXES = (
    Mix(name="generation", generate=2.0, score=1.0, train=0.8),
    Mix(name="scoring", generate=1.0, score=2.0, train=0.8),
    Mix(name="training", generate=1.2, score=0.8, train=2.0),
)
# 170 samples a second are 2.7 for each generator: responses of about 1500 tokens at 4000 tokens a second.
WIDE = tuple(
    Mix(name=name, generate=generate, score=score, train=train, generators=64, teachers=16, batch_size=2048)
    for name, generate, score, train in (
        ("generation", 12.0, 6.0, 4.8), ("scoring", 6.0, 12.0, 4.8), ("training", 7.2, 4.8, 12.0),
    )
)  # fmt: skip
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
        mix.load, folder / f"{mix.name} {mix.generators} {max_staleness} {in_flight}", f"max_staleness={max_staleness}",
        f"in_flight={in_flight}", f"steps={WARM_UP + steps + max_staleness + 1}", generators=mix.generators,
        teachers=mix.teachers, batch_size=mix.batch_size,
    )  # fmt: skip


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
        mix=mix.name, generators=mix.generators, teachers=mix.teachers, max_staleness=max_staleness, in_flight=in_flight,
        steps=len(steps), step=statistics.median(steps), step_mean=statistics.fmean(steps), slowest=mix.slowest,
        alone=mix.alone(), bound=mix.bound, staleness=statistics.fmean(line["staleness/max"] for line in lines),
        driver_ms=1000 * watch.cpu_seconds() / (len(steps) * mix.batch_size),
    )  # fmt: skip


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
        load, folder / f"{generators}", "max_staleness=1", "in_flight=keep", f"steps={WARM_UP + steps + 2}",
        generators=generators, teachers=teachers, batch_size=each * generators,
    )  # fmt: skip
    async with Fakes(config, load) as fakes:
        bare = await fakes.bare_ms(BATCH_SAMPLES)
        watch, _ = await watched(fakes, config, load)
    samples = len(watch.steps()) * config.batch_size
    return Throughput(
        generators=generators, teachers=teachers, in_flight=config.in_flight, steps=len(watch.steps()),
        samples_per_second=samples / sum(watch.steps()), slots_per_second=generators * load.slots / load.sample_seconds,
        driver_ms=1000 * watch.cpu_seconds() / samples, bare_ms=bare,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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


def scaling(throughputs: Sequence[Throughput]) -> list[float]:
    """Of each throughput, the share that it is of as many times one generator's, under the same schedule."""
    one = {t.in_flight: t.samples_per_second for t in throughputs if t.generators == 1}
    return [t.samples_per_second / (t.generators * one[t.in_flight]) for t in throughputs]


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


if __name__ == "__main__":
    main()
