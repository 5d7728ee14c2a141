"""A teacher that is served elsewhere: a Ray actor without a model, which sends what it is asked to the servers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from actors.packed_messages import PackedList
from renio_pipeline.config import RunConfig
from renio_pipeline.config.teachers.served_teachers import base_url
from renio_pipeline.models.info import PROBES
from renio_pipeline.preflight import Prepared
from renio_pipeline.served.spec import ServedSpec, read_key
from renio_pipeline.stages.engine_limits import EngineLimits, Ready
from renio_pipeline.stages.engine_text import EngineText, engine_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from renio_pipeline.served.client import Standing
    from renio_pipeline.types import Continuation, ContinuationRequest, ScoreRequest, TopK

T = TypeVar("T")
TEXTS, TEXT_TOKENS = 4, 256  # prompts on which servers are examined, and how much of each
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15}  # nats on average: see ``actors.pools.probe``


class HttpTeacher:
    """Has the methods of ``vllm_teacher.Teacher``. Several calls run at a time."""

    def __init__(self, spec: ServedSpec) -> None:
        from renio_pipeline.served.client import Servers

        self._spec, self._servers = spec, Servers(spec)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy, self._since, self._at_work = 0.0, 0.0, 0

    async def ready(self) -> Ready:
        """Returns when every server was asked, whether it answered or not."""
        await self._servers.open()
        requests = self._spec.concurrency * len(self._spec.urls)
        return Ready(receivers=0, limits=EngineLimits(sequences=requests, batched_tokens=requests * self._spec.context))

    async def ping(self) -> int:
        return os.getpid()

    async def busy_seconds(self) -> float:
        """The time in which at least one request was at a server, or waited for one."""
        return self._busy + (time.perf_counter() - self._since if self._at_work else 0.0)

    async def standing(self) -> Standing:
        return self._servers.standing

    async def engine_text(self, labels: dict[str, str]) -> EngineText:
        """What was counted of each server, with these labels added."""
        return engine_text(self._servers.figures.registry, "renio_server", labels)

    async def score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], dict[int, TopK]]:
        """Two results, so that the payload stays in the object store: see ``vllm_teacher.Teacher.score``."""
        tables = await self._together(self._servers.score(request) for request in requests)
        payload = {r.sample_id: t for r, t in zip(requests, tables, strict=True)} if self._spec.top_k else {}
        return PackedList(t.logprobs[:, 0].copy() for t in tables), payload

    async def write(self, requests: list[ContinuationRequest]) -> list[Continuation]:
        return PackedList(await self._together(self._servers.write(request) for request in requests))

    async def cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _together(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        tasks = [asyncio.create_task(each) for each in work]
        self._tasks |= {*tasks}
        try:
            with self._working():
                return await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            raise RuntimeError("the requests were cancelled") from None
        finally:
            for task in tasks:
                task.cancel()
            self._tasks -= {*tasks}

    @contextmanager
    def _working(self) -> Iterator[None]:
        if not self._at_work:
            self._since = time.perf_counter()
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._busy += time.perf_counter() - self._since


def served_spec(config: RunConfig, prepared: Prepared, teacher: str = "") -> ServedSpec:
    """The specification of a teacher of type http. The key is that of this process's environment, if it has one."""
    section, key = config.all_teachers[teacher], config.teacher_key(teacher)
    prompts = (prepared.teacher_ids[i][:TEXT_TOKENS].tolist() for i in range(min(TEXTS, len(prepared.teacher_ids))))
    probes = prepared.tokenizer(list(PROBES), add_special_tokens=False)["input_ids"]
    return ServedSpec(
        key=key,
        urls=tuple(map(base_url, section.urls)),
        api=section.api,
        model=section.served_model or config.teacher_model(teacher),
        key_env=section.key_env,
        secret=read_key(section.key_env),
        ca_file=section.ca_file,
        concurrency=section.concurrency,
        timeout=section.timeout,
        temperature=config.temperature,
        vocab_size=prepared.vocab_size,
        context=prepared.context,
        top_k=config.objective.payload.top_k,
        tolerance=TOLERANCE[section.dtype],
        end_tokens=prepared.end_tokens.get(teacher, ()),
        texts=tuple(tuple(ids) for ids in prompts if len(ids) > 1),
        probes=tuple((text, tuple(ids)) for text, ids in zip(PROBES, probes, strict=True)),
    )


def examine_servers(spec: ServedSpec) -> list[str]:
    """Examine a teacher's servers from this node. See ``renio_pipeline.served.client.check_servers``."""
    from renio_pipeline.served.client import check_servers

    return asyncio.run(check_servers(spec))
