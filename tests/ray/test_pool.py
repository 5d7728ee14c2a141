"""Dispatch of the pools. The replicas are fakes, named so: engines are not the point here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import ray

from actors.generation import WriteRequest, Written
from actors.pool import GeneratorPool, TeacherPool, sample_seed
from renio_pipeline.config import RunConfig
from renio_pipeline.types import Prompt, Rollout, Row, ScoreRequest, TopK, Version
from tests.ray.conftest import demo, run


@ray.remote(num_cpus=0, max_concurrency=100)
class FakeGenerator:
    """Writes the sample id as its one token; aborts some samples a number of times first."""

    def __init__(self, aborts: dict[int, int]) -> None:
        self.aborts, self.calls, self.most, self.now = dict(aborts), [], 0, 0

    async def generate(self, requests: list[WriteRequest]) -> AsyncIterator[Written]:
        self.calls.append([r.sample_id for r in requests])
        self.now += len(requests)
        self.most = max(self.most, self.now)
        for r in requests:
            await asyncio.sleep(0.01)
            self.now -= 1
            left = self.aborts.get(r.sample_id, 0)
            self.aborts[r.sample_id] = left - 1
            ended = None if left > 0 else "stop"
            yield Written(
                sample_id=r.sample_id, token_ids=np.array([r.sample_id, r.seed]), logprobs=np.zeros(2), stop_reason=ended,
                version=Version(0, 0),
            )  # fmt: skip

    async def seen(self) -> tuple[list[list[int]], int]:
        return self.calls, self.most


@ray.remote(num_cpus=0)
class FakeTeacher:
    """Scores every token -1; fails on sample 13 if told to."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.batches = fails, []

    def score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], dict[int, TopK]]:
        self.batches.append(sum(len(r.prompt_ids) + len(r.response_ids) for r in requests))
        if self.fails and any(r.sample_id == 13 for r in requests):
            raise RuntimeError("the teacher fell over")
        return [np.full(len(r.response_ids), -1.0, np.float32) for r in requests], {}

    def seen(self) -> list[int]:
        return self.batches


def prompts(count: int) -> list[Prompt]:
    ids = np.arange(5, dtype=np.int32)
    return [Prompt(sample_id=i, row=Row(id=str(i), problem=""), student_ids=ids, teacher_ids=ids) for i in range(count)]


def config(*overrides: str) -> RunConfig:
    return demo(*overrides)[0]


async def collect(pool: GeneratorPool, count: int) -> list[Rollout]:
    return [r async for r in pool.generate(prompts(count), 1.0)]


def test_an_aborted_response_is_sent_out_again_with_its_seed_and_never_passed_on(ray_cluster: None) -> None:
    pool = GeneratorPool([FakeGenerator.remote({3: 1, 5: 3}), FakeGenerator.remote({3: 1, 5: 3})], config())
    rollouts = run(collect(pool, 12))
    assert sorted(r.sample_id for r in rollouts) == list(range(12))
    assert {int(r.token_ids[1]) for r in rollouts} == {sample_seed(0, i) for i in range(12)}
    assert {r.stop_reason for r in rollouts} == {"stop"}


def test_a_sample_that_is_always_aborted_stops_the_run(ray_cluster: None) -> None:
    pool = GeneratorPool([FakeGenerator.remote({3: 99})], config())
    with pytest.raises(RuntimeError, match="sample 3 was aborted 4 times"):
        run(collect(pool, 6))


def test_a_replica_never_has_more_than_its_engine_takes_and_all_of_them_work(ray_cluster: None) -> None:
    replicas = [FakeGenerator.remote({}) for _ in range(3)]
    pool = GeneratorPool(replicas, config("generator.engine.max_num_seqs=4"))
    assert len(run(collect(pool, 50))) == 50
    seen: list[Any] = ray.get([r.seen.remote() for r in replicas])
    assert all(1 < most <= 4 for _, most in seen)
    assert sorted(i for calls, _ in seen for call in calls for i in call) == list(range(50))


def test_a_deterministic_run_gives_each_replica_its_samples_at_once_and_in_order(ray_cluster: None) -> None:
    replicas = [FakeGenerator.remote({}) for _ in range(3)]
    pool = GeneratorPool(replicas, config("deterministic=true"))
    run(collect(pool, 10))
    seen: list[Any] = ray.get([r.seen.remote() for r in replicas])
    assert [calls for calls, _ in seen] == [[[0, 3, 6, 9]], [[1, 4, 7]], [[2, 5, 8]]]


def rollout(prompt: Prompt, tokens: int) -> Rollout:
    ids = np.zeros(tokens, np.int32)
    return Rollout(prompt=prompt, token_ids=ids, logprobs=ids.astype(np.float32), stop_reason="stop", version=Version(0, 0))


async def stream(count: int, tokens: int = 15) -> AsyncIterator[Rollout]:
    for prompt in reversed(prompts(count)):
        yield rollout(prompt, tokens)
        await asyncio.sleep(0)


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_teachers_score_everything_once_in_batches_bounded_by_tokens(ray_cluster: None, deterministic: str) -> None:
    replicas = [FakeTeacher.remote(), FakeTeacher.remote()]
    pool = TeacherPool(replicas, config("teacher.max_batch_tokens=60", f"deterministic={deterministic}"))
    scored = run(pool.score(stream(40)))
    assert [s.rollout.sample_id for s in scored] == list(range(40))
    assert all(s.scores.logprobs.shape == (15,) and s.scores.sample_id == s.rollout.sample_id for s in scored)
    batches = ray.get([r.seen.remote() for r in replicas])
    assert all(share and max(share) <= 60 for share in batches)
    assert sum(map(sum, batches)) == 40 * 20


def test_a_response_longer_than_the_bound_is_scored_alone(ray_cluster: None) -> None:
    replica = FakeTeacher.remote()
    assert len(run(TeacherPool([replica], config("teacher.max_batch_tokens=10")).score(stream(3)))) == 3
    assert ray.get(replica.seen.remote()) == [20, 20, 20]


def test_a_teacher_that_fails_ends_the_step(ray_cluster: None) -> None:
    pool = TeacherPool([FakeTeacher.remote(fails=True), FakeTeacher.remote(fails=True)], config())
    with pytest.raises(ExceptionGroup) as caught:
        run(pool.score(stream(14)))
    assert "the teacher fell over" in str(caught.value.exceptions[0])
