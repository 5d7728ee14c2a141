"""The engine's thread, around a fake engine: nobody waits for ever."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.engine import EngineLoop, Request
from actors.engine_options import accepted, check_engine_options
from renio_pipeline.config import ConfigError, parse
from tests.unit.conftest import values


@dataclass
class Output:
    request_id: str
    finished: bool = True


@dataclass
class FakeEngine:
    """Finishes every request at its second step; dies at a given step."""

    dies_at: int = 10**9
    steps: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    admitted: list[list[str]] = field(default_factory=lambda: [[]])

    def add_request(self, name: str, prompt: Any, params: Any, *, lora_request: Any = None) -> None:
        if prompt["prompt_token_ids"] == [13]:
            raise ValueError("unlucky")
        self.waiting[name] = 2
        self.admitted[-1].append(name)

    def step(self) -> list[Output]:
        self.steps += 1
        self.admitted.append([])
        if self.steps >= self.dies_at:
            raise RuntimeError("the engine died")
        self.waiting = {name: left - 1 for name, left in self.waiting.items()}
        done = [name for name, left in self.waiting.items() if left == 0]
        self.waiting = {name: left for name, left in self.waiting.items() if left}
        return [Output(name) for name in done] + [Output("nobody's")]


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
        with pytest.raises(RuntimeError, match="the engine died"):
            future.result(10)
    with pytest.raises(RuntimeError, match="the engine died"):
        loop.submit([request()])[0].result(10)
    with pytest.raises(RuntimeError, match="the engine died"):
        loop.call(lambda e: None).result(10)


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
