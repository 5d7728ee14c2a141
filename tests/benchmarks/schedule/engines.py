"""Fakes of generators, teachers and a trainer rank: each takes the time that it is told to, and nothing more."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors.engines.generator import Ended, WriteRequest, Written
from actors.engines.result_batcher import ResultBatcher
from actors.packed_messages import PackedList, pack, unpack
from actors.trainer.messages import RankReport, WriteState
from actors.weight_sync.sender import SyncReceipt
from renio_pipeline.stages.engine_limits import EngineLimits, Ready
from renio_pipeline.types import FIRST_VERSION, ScoreRequest, TrainSample, Version
from tests.benchmarks.schedule.load import BATCH_SAMPLES, TOKENS, Load, Span, length_factor


class Sleeper:
    """What fakes of both kinds answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._busy = 0.0
        self._done: list[Span] = []

    async def ready(self) -> Ready:
        return Ready(limits=EngineLimits(sequences=self._load.slots, batched_tokens=BATCH_SAMPLES * TOKENS))

    async def ping(self) -> int:
        return os.getpid()

    async def busy_seconds(self) -> float:
        return self._busy

    async def cancel_all(self) -> None:
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
        self._results: ResultBatcher[Ended] = ResultBatcher()
        self._writing: set[asyncio.Task[None]] = set()

    async def exchange(self, packed: bytes) -> bytes:
        requests: list[WriteRequest] = unpack(packed)
        self._writing |= {asyncio.create_task(self._write(request)) for request in requests}
        return pack(await self._results.take())

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
            sample_id=request.sample_id,
            token_ids=np.arange(tokens, dtype=np.int32) % 90 + 40,
            logprobs=np.full(tokens, -1.0, np.float32),
            stop_reason="stop",
            version=first,
            last_version=last,
        )
        self._results.put(written, end - start, request.slack)
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
        return PackedList(np.full(len(r.response_ids), -1.1, np.float32) for r in requests), None


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
            loss=1.0,
            divergence=1.0,
            tokens=tokens,
            padded_tokens=tokens,
            mismatch_sum=0.0,
            mismatch_max=0.0,
            response_tokens=tokens,
            busy_seconds=self._load.train_seconds,
        )

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
