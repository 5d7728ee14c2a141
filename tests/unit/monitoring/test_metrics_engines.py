"""The page of the engines' own metrics: put together without being parsed, fetched when asked, never waited for by the run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from renio_pipeline.control.commands import in_background
from renio_pipeline.monitoring import engines
from renio_pipeline.monitoring.engines import Engines
from renio_pipeline.stages.engine_text import EngineText, engine_text, together


def registry_of(requests: int) -> CollectorRegistry:
    """As an engine's: names with a colon, labels of its own, and what is none of the engine's."""
    registry = CollectorRegistry()
    Counter("vllm:prompt_tokens", "Prompt tokens.", ["model_name"], registry=registry).labels('a "model"').inc(requests)
    Gauge("vllm:num_requests_running", "Running.", ["model_name"], registry=registry).labels("m").set(requests)
    Histogram("vllm:ttft_seconds", "First token.", ["model_name"], registry=registry).labels("m").observe(0.1)
    Gauge("process_resident_memory_bytes", "Not the engine's.", registry=registry).set(1)
    return registry


def labels_of(pool: str, replica: str) -> dict[str, str]:
    return {"run": "r", "pool": pool, "replica": replica}


def test_engines_texts_are_one_valid_page_with_pool_and_replica_added() -> None:
    texts = [engine_text(registry_of(n), "vllm:", labels_of("generator", str(n))) for n in (1, 2)]
    page = together(texts)
    found = {family.name: family for family in text_string_to_metric_families(page)}
    assert set(found) == {"vllm:prompt_tokens", "vllm:num_requests_running", "vllm:ttft_seconds"}
    tokens = {s.labels["replica"]: (s.value, s.labels["model_name"]) for s in found["vllm:prompt_tokens"].samples}
    assert tokens == {"1": (1.0, 'a "model"'), "2": (2.0, 'a "model"')}
    assert page.count("# TYPE vllm:prompt_tokens_total counter") == 1
    buckets = [s for s in found["vllm:ttft_seconds"].samples if s.name.endswith("_bucket")]
    assert {s.labels["replica"] for s in buckets} == {"1", "2"}
    assert all({"le", "run", "pool", "model_name"} <= s.labels.keys() for s in buckets)


@dataclass
class FakePool:
    """Engines that answer after a while, or never."""

    replicas: int = 2
    seconds: float = 0.0
    silent: bool = False
    asked: int = 0
    threads: set[int] = field(default_factory=set)

    async def engine_texts(self, run: str, seconds: float) -> Mapping[str, EngineText | None]:
        self.asked += 1
        self.threads.add(threading.get_ident())
        await asyncio.sleep(self.seconds)
        return {
            str(i): None if self.silent else engine_text(registry_of(i), "vllm:", labels_of("p", str(i)))
            for i in range(self.replicas)
        }


def values(page: bytes, name: str) -> dict[tuple[str, str], float]:
    return {
        (s.labels["pool"], s.labels["replica"]): s.value
        for family in text_string_to_metric_families(page.decode())
        if family.name == name
        for s in family.samples
    }


def test_a_page_says_which_engines_answered_and_is_kept_for_a_while() -> None:
    now = [0.0]
    pools = {"generator": FakePool(), "teacher": FakePool(silent=True), "torch": FakePool(replicas=0)}

    async def go() -> list[bytes]:
        found = []
        async with in_background(service.serve(pools)):
            await asyncio.sleep(0)
            for now[0] in (1.0, 1.0 + engines.KEPT_SECONDS / 2, 1.0 + engines.KEPT_SECONDS):
                found.append(await asyncio.to_thread(service.page))
        return found

    service = Engines("r", clock=lambda: now[0])
    assert service.page() == b"", "before the run serves there is nothing to show"
    first, second, third = asyncio.run(go())
    assert values(first, "renio_engine_up") == {
        ("generator", "0"): 1,
        ("generator", "1"): 1,
        ("teacher", "0"): 0,
        ("teacher", "1"): 0,
    }
    assert values(first, "vllm:num_requests_running") == {("p", "0"): 0, ("p", "1"): 1}
    assert first is second
    assert third == first
    assert pools["generator"].asked == 2


def test_askers_at_a_time_share_one_answer_and_the_loop_goes_on_meanwhile() -> None:
    pool = FakePool(seconds=0.2)
    service = Engines("r")

    async def go() -> tuple[list[bytes], int]:
        turns = 0
        async with in_background(service.serve({"generator": pool})):
            await asyncio.sleep(0)
            pages = asyncio.gather(*(asyncio.to_thread(service.page) for _ in range(4)))
            while not pages.done():
                await asyncio.sleep(0.005)
                turns += 1
            return list(await pages), turns

    pages, turns = asyncio.run(go())
    assert len(set(pages)) == 1
    assert pages[0]
    assert pool.asked == 1
    assert turns > 10, "the loop stood still while the page was fetched"


def test_engines_that_never_answer_cost_the_asker_its_patience_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PATIENCE_SECONDS", -0.8)  # of the asker: 0.2 s

    async def go() -> tuple[bytes, float]:
        service = Engines("r")
        async with in_background(service.serve({"generator": FakePool(seconds=60)})):
            await asyncio.sleep(0)
            began = time.perf_counter()
            return await asyncio.to_thread(service.page), time.perf_counter() - began

    page, seconds = asyncio.run(go())
    assert page == b""
    assert 0.1 < seconds < 5


def test_askers_of_a_run_that_does_not_answer_wait_once_and_not_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PATIENCE_SECONDS", -0.8)  # of the asker: 0.2 s
    pool = FakePool(seconds=60)

    async def go() -> list[bytes]:
        service = Engines("r")
        async with in_background(service.serve({"generator": pool})):
            await asyncio.sleep(0)
            return list(await asyncio.gather(*(asyncio.to_thread(service.page) for _ in range(5))))

    assert set(asyncio.run(go())) == {b""}
    assert pool.asked == 1


def test_after_the_run_the_page_is_empty_at_once() -> None:
    service = Engines("r", clock=iter(range(0, 1000, 100)).__next__)

    async def go() -> None:
        async with in_background(service.serve({"generator": FakePool()})):
            await asyncio.sleep(0)

    asyncio.run(go())
    assert service.page() == b""
