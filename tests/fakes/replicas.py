"""Replicas without an engine, which fail as they are told to."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray

from actors.cluster.placement import GroupLease, start_in_group
from actors.engines.generator import Ended, WriteRequest, Written
from actors.engines.result_batcher import ResultBatcher
from actors.packed_messages import pack, unpack
from renio_pipeline.stages.engine_limits import EngineLimits, Ready
from renio_pipeline.types import ScoreRequest, TopK, Version


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a fake does in one of its lives."""

    # By sample id, at each time that it comes: abort, die, hang (while pings are answered), stop (the whole process), raise.
    faults: Mapping[int, Sequence[str]] = field(default_factory=dict)
    seconds: float = 0.01  # for a sample, until it is told to hurry
    late: float = 0.0  # seconds by which calls made after it overtake one with requests, as Ray lets them
    refuses: bool = False  # to start
    dies_at_ping: int | None = None  # 1: the first
    logprob: float = -1.0  # of every token, by a teacher
    noise: float = 0.0  # of a teacher's log-probabilities where it scores one text alone: other kernels round otherwise
    sequences: int = 256  # that its engine computes at a time, as it says


class Fake:
    def __init__(self, plan: Plan) -> None:
        if plan.refuses:
            raise RuntimeError("there is no such model")
        self._plan = plan
        self._faults = {sample_id: list(faults) for sample_id, faults in plan.faults.items()}
        self._called_off = asyncio.Event()
        self._hurries, self._pings = False, 0
        self.calls: list[list[int]] = []  # sample ids

    async def ready(self) -> Ready:
        return Ready(limits=EngineLimits(sequences=self._plan.sequences, batched_tokens=16384))

    async def ping(self) -> int:
        self._pings += 1
        if self._pings == self._plan.dies_at_ping:
            _die("this machine is not well")
        return os.getpid()

    async def busy_seconds(self) -> float:
        return 0.0

    async def cancel_all(self) -> None:
        self._called_off.set()
        self._called_off = asyncio.Event()

    async def hurry(self) -> None:
        """Take no time for a sample any more."""
        self._hurries = True

    async def seen(self) -> list[list[int]]:
        """The sample ids of each call so far."""
        return self.calls

    async def _pause(self, called_off: asyncio.Event) -> None:
        end = time.monotonic() + self._plan.seconds
        while not (self._hurries or called_off.is_set()) and time.monotonic() < end:
            await asyncio.sleep(0.01)

    async def _suffer(self, sample_id: int) -> str | None:
        """The sample's next fault, if one survives it."""
        left = self._faults.get(sample_id)
        fault = left.pop(0) if left else None
        if fault == "die":
            _die(f"sample {sample_id} was too much")
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "raise":
            raise RuntimeError("the teacher fell over")
        return fault


def _die(last_words: str) -> None:
    print(last_words, flush=True)
    os._exit(1)


@ray.remote(max_concurrency=100)
class FakeGenerator(Fake):
    """Writes the sample id and its seed as its tokens, one sample after the other."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._most = self._now = 0
        self._results: ResultBatcher[Ended] = ResultBatcher()
        self._writing: set[asyncio.Task[None]] = set()

    async def exchange(self, packed: bytes) -> bytes:
        requests: list[WriteRequest] = unpack(packed)
        if requests:
            await asyncio.sleep(self._plan.late)
            self.calls.append([r.sample_id for r in requests])
            self._now += len(requests)
            self._most = max(self._most, self._now)
            self._writing.add(asyncio.create_task(self._write(requests, self._called_off)))
        return pack(await self._results.take())

    async def _write(self, requests: list[WriteRequest], called_off: asyncio.Event) -> None:
        for r in requests:
            await self._pause(called_off)
            fault = await self._suffer(r.sample_id)
            self._now -= 1
            aborted = fault == "abort" or called_off.is_set()
            self._results.put(
                Written(
                    sample_id=r.sample_id,
                    token_ids=np.array([r.sample_id, r.seed]),
                    logprobs=np.zeros(2),
                    stop_reason=None if aborted else "stop",
                    version=Version(0, 0),
                )
            )

    async def most(self) -> int:
        """The most samples that it had at a time."""
        return self._most


@ray.remote(max_concurrency=100)
class FakeTeacher(Fake):
    """Scores every token alike."""

    async def score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], dict[int, TopK]]:
        self.calls.append([r.sample_id for r in requests])
        await self._pause(self._called_off)
        for r in requests:
            await self._suffer(r.sample_id)
        logprob = self._plan.logprob + (self._plan.noise if len(requests) == 1 else 0.0)
        return [np.full(len(r.response_ids), logprob, np.float32) for r in requests], {}


class Fakes:
    """Starts fakes, and remembers them: ``lives`` has the actors of each slot, one after the other."""

    def __init__(
        self, actor: Any, plans: Mapping[int, Sequence[Plan]] | None = None, *, otherwise: Plan | None = None, cpus: float = 0.0
    ) -> None:
        """``plans``: of each slot's first lives; all other lives are as ``otherwise``."""
        self._actor, self._plans, self._otherwise, self._cpus = actor, plans or {}, otherwise or Plan(), cpus
        self.lives: defaultdict[int, list[Any]] = defaultdict(list)
        self.sequences = Plan.sequences

    def start(self, slot: int) -> GroupLease:
        life, plans = len(self.lives[slot]), self._plans.get(slot, ())
        plan = plans[life] if life < len(plans) else self._otherwise
        plan = replace(plan, sequences=self.sequences)
        made = start_in_group(self._actor, (plan,), {"num_cpus": self._cpus, "num_gpus": 0})
        self.lives[slot].append(made.actor)
        return made

    async def calls(self) -> list[list[list[int]]]:
        """What each slot's present life was asked, in the order of slots."""
        return list(await asyncio.gather(*(self.lives[slot][-1].seen.remote() for slot in sorted(self.lives))))
