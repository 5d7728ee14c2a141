"""The engine's thread, around a fake engine: nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import pickle
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.engines.generator import Failed, Generator, WriteRequest, Written
from actors.engines.loop import EngineLoop, Request
from actors.engines.options import accepted, check_engine_options
from actors.engines.specs import EngineSpec
from actors.errors import EngineFailed
from actors.packed_messages import pack, unpack
from renio_pipeline.config import ConfigError, parse
from renio_pipeline.types import Version
from tests.unit.conftest import values


@dataclass
class Output:
    request_id: str
    finished: bool = True


@dataclass
class FakeEngine:
    """Finishes every request at its last step; dies at a given step. A request on the token 13 is refused."""

    dies_at: int = 10**9
    takes: int = 2  # steps
    steps: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    admitted: list[list[str]] = field(default_factory=lambda: [[]])
    calls: list[Any] = field(default_factory=list)
    refuses: Exception | None = None  # what any command ends with

    def add_request(self, name: str, prompt: Any, params: Any, *, lora_request: Any = None) -> None:
        if prompt["prompt_token_ids"] == [13]:
            raise ValueError("unlucky")
        self._called("add_request")
        self.waiting[name] = self.takes
        self.admitted[-1].append(name)

    def step(self) -> list[Output]:
        self.steps += 1
        self.admitted.append([])
        if self.steps >= self.dies_at:
            raise RuntimeError("the engine died")
        self.waiting = {name: left - 1 for name, left in self.waiting.items()}
        done = [name for name, left in self.waiting.items() if left == 0]
        self.waiting = {name: left for name, left in self.waiting.items() if left}
        return [self.output(name) for name in done] + [Output("nobody's")]

    def output(self, name: str) -> Any:
        return Output(name)

    def abort_request(self, names: list[str]) -> None:
        self._called("abort", *names)
        for name in names:
            del self.waiting[name]

    def reset_prefix_cache(self, reset_running_requests: bool = False) -> bool:
        self._called("reset", reset_running_requests)
        return reset_running_requests or not self.waiting

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        self._called("sleep", level, mode)

    def wake_up(self, tags: list[str] | None = None) -> None:
        self._called("wake_up", tags)

    def _called(self, name: str, *arguments: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.calls.append((name, *arguments))


def request(token: int = 1) -> Request:
    return Request(prompt_ids=[token], params=None)  # type: ignore[arg-type]


def test_requests_are_admitted_together_and_every_one_is_answered() -> None:
    engine = FakeEngine()
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    futures = loop.submit([request() for _ in range(5)])
    assert [f.result(10).request_id for f in futures] == ["0", "1", "2", "3", "4"]
    assert engine.admitted[0] == ["0", "1", "2", "3", "4"]
    assert loop.call(lambda e: e.steps).result(10) == 2  # type: ignore[attr-defined]


def test_a_refused_request_fails_alone() -> None:
    loop = EngineLoop(FakeEngine)  # type: ignore[arg-type]
    good, bad = loop.submit([request(), request(13)])
    assert good.result(10).finished
    with pytest.raises(ValueError, match="unlucky"):
        bad.result(10)


def test_a_dead_engine_fails_everyone_who_waits_and_everyone_who_comes() -> None:
    loop = EngineLoop(lambda: FakeEngine(dies_at=1))  # type: ignore[arg-type,return-value]
    for future in loop.submit([request(), request()]):
        with pytest.raises(EngineFailed, match="the engine failed: RuntimeError: the engine died"):
            future.result(10)
    with pytest.raises(EngineFailed, match="the engine died"):
        loop.submit([request()])[0].result(10)
    with pytest.raises(EngineFailed, match="the engine died"):
        loop.call(lambda e: None).result(10)


class EngineDeadError(Exception):
    """As vLLM raises it, whatever is asked, where the engine is a process of its own that has died."""


def test_an_engine_process_that_is_gone_is_a_dead_engine_not_a_refused_request() -> None:
    engine = FakeEngine(refuses=EngineDeadError("gone"))
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    for future in loop.submit([request(), request(), request()]):
        with pytest.raises(EngineFailed, match="EngineDeadError: gone"):
            future.result(10)
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    for _ in range(2):
        with pytest.raises(EngineFailed, match="EngineDeadError: gone"):
            loop.call(lambda e: e.reset_prefix_cache()).result(10)


def test_the_failure_crosses_process_borders() -> None:
    assert str(pickle.loads(pickle.dumps(EngineFailed("the engine failed: ValueError: x")))) == (
        "the engine failed: ValueError: x"
    )


def test_no_step_is_made_while_the_weights_change_and_commands_run() -> None:
    engine = FakeEngine(takes=5)
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    loop.hold().result(10)
    (early,) = loop.submit([request()])
    for _ in range(20):
        assert loop.call(lambda e: e.steps, held=True).result(10) == 0  # type: ignore[attr-defined]
    assert not early.done()
    assert engine.admitted == [["0"]]
    loop.release().result(10)
    assert early.result(10).finished
    assert engine.calls == [("sleep", 0, "keep"), ("add_request",), ("wake_up", ["scheduling"])]


def test_what_belongs_to_an_update_is_refused_outside_of_one() -> None:
    loop = EngineLoop(FakeEngine)  # type: ignore[arg-type]
    for future in (loop.release(), loop.call(lambda e: None, held=True)):
        with pytest.raises(RuntimeError, match="no weight update is under way"):
            future.result(10)
    loop.mark_weights_invalid(OSError()).result(10)
    assert loop.submit([request()])[0].result(10).finished


def test_mixed_weights_serve_nobody_until_they_are_whole_again() -> None:
    engine = FakeEngine()
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    loop.hold().result(10)
    under_way = loop.submit([request(), request()])
    loop.mark_weights_invalid(OSError("no chunk")).result(10)
    for future in [*under_way, *loop.submit([request()])]:
        with pytest.raises(EngineFailed, match="a weight update failed half way: OSError: no chunk"):
            future.result(10)
    assert ("abort", "0", "1") in engine.calls
    assert engine.steps == 0
    loop.hold().result(10)
    loop.hold().result(10)  # as when an update begins anew
    loop.release().result(10)
    assert loop.submit([request()])[0].result(10).finished


def test_asleep_it_takes_neither_requests_nor_weights() -> None:
    engine = FakeEngine()
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    for _ in range(2):  # again: no effect
        loop.sleep(free_memory=True).result(10)
    for future in (*loop.submit([request(), request()]), loop.hold()):
        with pytest.raises(RuntimeError, match="the engine sleeps: wake it up") as caught:
            future.result(10)
        assert not isinstance(caught.value, EngineFailed)
    for _ in range(2):
        loop.wake_up(free_memory=True).result(10)
    assert loop.submit([request()])[0].result(10).finished
    assert engine.calls == [("reset", False), ("sleep", 1, "abort"), ("wake_up", None), ("add_request",)]


def test_without_a_gpu_nothing_but_the_bookkeeping_sleeps() -> None:
    engine = FakeEngine()
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    loop.sleep(free_memory=False).result(10)
    with pytest.raises(RuntimeError, match="sleeps"):
        loop.submit([request()])[0].result(10)
    loop.wake_up(free_memory=False).result(10)
    assert loop.submit([request()])[0].result(10).finished
    assert engine.calls == [("reset", False), ("add_request",)]


def test_it_does_not_fall_asleep_over_its_work() -> None:
    engine = FakeEngine()
    loop = EngineLoop(lambda: engine)  # type: ignore[arg-type,return-value]
    loop.hold().result(10)
    with pytest.raises(RuntimeError, match="idle, but a weight update is under way"):
        loop.sleep(free_memory=True).result(10)
    (future,) = loop.submit([request()])
    with pytest.raises(RuntimeError, match="idle, but 1 requests are under way"):
        loop.sleep(free_memory=True).result(10)
    loop.release().result(10)
    assert future.result(10).finished
    engine.reset_prefix_cache = lambda reset_running_requests=False: False  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="kept its prefix cache"):
        loop.sleep(free_memory=True).result(10)
    assert loop.submit([request()])[0].result(10).finished, "it is not asleep"


@dataclass
class Versioned(FakeEngine):
    """One token a step, labelled with the weights in force as vLLM does it."""

    version: str = "0.0"
    labels: dict[str, list[str]] = field(default_factory=dict)

    def step(self) -> list[Output]:
        for name in self.waiting:
            self.labels.setdefault(name, []).append(self.version)
        return super().step()

    def output(self, name: str) -> Any:
        labels = self.labels[name]
        spans = [SimpleNamespace(version=v) for v in dict.fromkeys(labels)]
        logprobs = SimpleNamespace(logprobs=[-1.0] * len(labels))
        completion = SimpleNamespace(
            finish_reason="length", token_ids=[7] * len(labels), logprobs=logprobs, weight_versions=spans
        )
        return SimpleNamespace(request_id=name, finished=True, outputs=[completion])

    def set_weight_version(self, version: str) -> None:
        self.version = version

    def collective_rpc(self, method: str, args: Any = ()) -> list[None]:
        self._called(args[0] if method == "renio_try" else method)
        return [None]


SPEC = EngineSpec(model="m", dtype="float32", context=8, temperature=1.0, vocab_size=4)


def generator(monkeypatch: pytest.MonkeyPatch, engine: Any, **spec: Any) -> Generator:
    monkeypatch.setattr("actors.engines.vllm_replica.build_engine", lambda spec: engine)
    return Generator(EngineSpec(**{**vars(SPEC), **spec}))


async def update(replica: Generator, version: Version) -> None:
    await replica.start_weight_update()
    await replica.finish_weight_update(version)


async def write(replica: Generator) -> list[Written]:
    wanted = [
        WriteRequest(sample_id=0, prompt_ids=np.ones(1, np.int32), seed=0, max_tokens=9, temperature=1.0, top_p=1.0, top_k=0)
    ]
    (ended,) = unpack(await replica.exchange(pack(wanted)))
    if isinstance(ended, Failed):
        raise ended.error
    return [ended]


async def under_way(replica: Generator) -> asyncio.Task[list[Written]]:
    """A response that was begun and will not end by itself soon."""
    task = asyncio.create_task(write(replica))
    while not replica._loop.busy_seconds:
        await asyncio.sleep(0)
    return task


def test_a_response_that_is_kept_says_which_weights_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Versioned(takes=10**9)
    replica = generator(monkeypatch, engine, keep_in_flight=True)

    async def go() -> list[Written]:
        task = await under_way(replica)
        await update(replica, Version(0, 1))
        await replica.start_weight_update()
        engine.waiting["0"] = 1  # its last token comes after the next update
        await replica.finish_weight_update(Version(1, 0))
        return [*await task, *await short()]

    async def short() -> list[Written]:
        engine.takes = 2
        return await write(replica)

    kept, later = asyncio.run(go())
    assert (kept.version, kept.last_version) == (Version(0, 0), Version(1, 0))
    assert (later.version, later.last_version) == (Version(1, 0), Version(1, 0))
    assert ("reset", True) in engine.calls


def test_without_keep_a_request_under_way_is_an_error_of_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = generator(monkeypatch, Versioned(takes=10**9))

    async def go() -> None:
        task = await under_way(replica)
        with pytest.raises(RuntimeError, match="kept its prefix cache"):
            await update(replica, Version(0, 1))
        for attempt in (task, write(replica)):
            with pytest.raises(EngineFailed, match="a weight update failed half way: RuntimeError: vLLM kept"):
                await attempt

    asyncio.run(go())


def test_after_an_update_that_failed_or_was_aborted_a_later_one_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Versioned()
    replica = generator(monkeypatch, engine)

    async def refused() -> str:
        with pytest.raises(EngineFailed) as caught:
            await write(replica)
        return str(caught.value)

    async def go() -> None:
        engine.refuses = OSError("no memory")
        with pytest.raises(OSError, match="no memory"):
            await replica.start_weight_update()
        engine.refuses = None
        await write(replica)  # it was never held
        await replica.start_weight_update()
        await replica.abort_weight_update()
        assert "it was aborted" in await refused()
        with pytest.raises(RuntimeError, match="call start_weight_update first"):
            await replica.finish_weight_update(Version(0, 1))
        await update(replica, Version(0, 2))
        await replica.abort_weight_update()  # there is none
        (written,) = await write(replica)
        assert written.version == Version(0, 2)

    asyncio.run(go())


def test_a_replica_answers_a_ping_and_sleeps_as_its_hardware_can(monkeypatch: pytest.MonkeyPatch) -> None:
    async def naps(engine: FakeEngine, **spec: Any) -> list[Any]:
        replica = generator(monkeypatch, engine, **spec)
        assert await replica.ping() == os.getpid()
        await replica.sleep()
        with pytest.raises(RuntimeError, match="sleeps"):
            await write(replica)
        with pytest.raises(RuntimeError, match="sleeps"):
            await replica.start_weight_update()
        await replica.wake_up()
        await update(replica, Version(0, 1))
        return [call for call in engine.calls if call[0] == "sleep"]

    pause = ("sleep", 0, "keep")
    assert asyncio.run(naps(Versioned())) == [pause]
    assert asyncio.run(naps(Versioned(), on_gpu=True, sleeps=True)) == [("sleep", 1, "abort"), pause]
    with pytest.raises(RuntimeError, match="set sleeps in its spec"):
        asyncio.run(naps(Versioned(), on_gpu=True))


def test_a_cancelled_wait_neither_kills_the_engine_nor_harms_the_others() -> None:
    loop = EngineLoop(FakeEngine)  # type: ignore[arg-type]
    for _ in range(50):
        first, second = loop.submit([request(), request()])
        first.cancel()
        assert second.result(10).finished
    assert loop.submit([request()])[0].result(10).finished


def test_an_engine_that_cannot_be_built_raises_where_it_was_asked_for() -> None:
    def build() -> Any:
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        EngineLoop(build)


def test_an_option_that_vllm_does_not_have_is_refused_with_the_nearest() -> None:
    assert {"max_num_seqs", "enforce_eager", "gpu_memory_utilization"} <= accepted()
    check_engine_options(parse(values(generator={"engine": {"max_num_seqs": 8}})))
    with pytest.raises(ConfigError, match=r"generator.engine.max_num_seq: .*; did you mean max_num_seqs\?"):
        check_engine_options(parse(values(generator={"engine": {"max_num_seq": 8}})))
