"""The pools: who gets which samples, and what becomes of these when workers die, fall silent, come and go.

The replicas are fakes, named so: engines are not the point here.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from actors.engines.generator import Generator
from actors.engines.torch_teacher import TorchTeacher
from actors.engines.vllm_hidden_teacher import HiddenTeacher
from actors.engines.vllm_teacher import Teacher
from actors.pools import supervisor
from actors.pools.generators import GeneratorPool
from actors.pools.jobs import Service
from actors.pools.probe import Probe
from actors.pools.start_errors import NotStartedError
from actors.pools.teachers import TeacherPool
from actors.pools.worker import Kind
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.faults import CrashLoopError
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.types import Prompt, Rollout, Row, ScoredRollout, Version
from tests.fakes.replicas import FakeGenerator, Fakes, FakeTeacher, Plan
from tests.ray.conftest import demo, run

TOKENS = 15  # of a response; with its prompt it has 20
UNBOUNDED = 2**62
MOST_SECONDS = 120.0  # that any condition takes to come true
SLOW = 600.0  # seconds for a sample: until it is told to hurry
FAULTS = {"die": [], "hang": ["faults.deadline_seconds=3"], "stop": ["faults.heartbeat_seconds=5"]}
LOST = {
    "die": r"its process died \(on node [\d.]+\)$",
    "hang": r"no response finished in 3\.48 s|no answer to 3 responses to score in 3\.06 s",
    "stop": "no answer to a ping in 5 s",
}
QUICK = ["faults.generator_seconds_per_token=0.01", "faults.teacher_seconds_per_token=0.001"]


class Bench:
    """A pool of fakes, and what it said."""

    pool: Any

    def __init__(self, fakes: Fakes, *overrides: str, rejected: Path | None = None) -> None:
        self.fakes, self.notes = fakes, list[str]()
        self.log = QuarantineLog(rejected, self.notes.append)
        self.service = Service(config=demo(*overrides)[0], quarantine=self.log, note=self.notes.append)
        fakes.sequences = self.service.config.generator.engine.get("max_num_seqs", fakes.sequences)  # as vLLM would

    @asynccontextmanager
    async def opened(self, *, all_of_them: bool = True) -> AsyncIterator[Any]:
        self.pool.workers.open()
        try:
            await self.pool.workers.settled(all_of_them=all_of_them)
            yield self.pool
        finally:
            self.pool.close()

    def kind(self, name: str, **more: Any) -> Kind:
        return Kind(name=name, start=self.fakes.start, **more)

    @property
    def restarts(self) -> int:
        found: int = self.pool.status()["restarts"]
        return found


def generators(size: int, fakes: Fakes | None = None, *overrides: str, rejected: Path | None = None) -> Bench:
    bench = Bench(fakes or Fakes(FakeGenerator), *overrides, rejected=rejected)
    bench.pool = GeneratorPool(bench.kind("generator"), size, bench.service)
    return bench


def teachers(
    size: int,
    fakes: Fakes | None = None,
    *overrides: str,
    budget: PayloadBudget | None = None,
    check: Any = None,
    rejected: Path | None = None,
) -> Bench:
    """A pool whose payload has one byte a token."""
    bench = Bench(fakes or Fakes(FakeTeacher), *overrides, rejected=rejected)
    if budget is None:
        budget = PayloadBudget(UNBOUNDED, 1, 0)
        budget.open(1)
    bench.pool = TeacherPool(bench.kind("teacher", check=check), size, bench.service, budget, token_bytes=1)
    return bench


def prompts(count: int) -> list[Prompt]:
    ids = np.arange(5, dtype=np.int32)
    return [Prompt(sample_id=i, row=Row(id=str(i), problem=""), student_ids=ids, teacher_ids=ids) for i in range(count)]


async def write(pool: GeneratorPool, count: int) -> list[Rollout]:
    return [r async for r in pool.generate(prompts(count), 1.0)]


async def cancel_all(pool: GeneratorPool, count: int, *, in_flight: int) -> None:
    """Ask for responses, and forget them when so many are being written."""
    writing = asyncio.create_task(write(pool, count))
    await until(lambda: pool.workers.in_flight() == in_flight)
    await pool.cancel_all()
    writing.cancel()


def rollout(sample_id: int) -> Rollout:
    ids = np.zeros(TOKENS, np.int32)
    prompt = prompts(sample_id + 1)[sample_id]
    return Rollout(prompt=prompt, token_ids=ids, logprobs=ids.astype(np.float32), stop_reason="stop", version=Version(0, 0))


async def stream(*sample_ids: int) -> AsyncIterator[Rollout]:
    for sample_id in sample_ids:
        yield rollout(sample_id)
        await asyncio.sleep(0)


async def score_together(pool: TeacherPool, *sample_ids: int) -> list[ScoredRollout]:
    """Hand nothing out before all of them wait."""
    async with pool.paused_dispatch(drain=False):
        scoring = asyncio.ensure_future(pool.score(stream(*sample_ids), 1))
        await asyncio.sleep(0.1)
        assert pool.status()["queue"] == len(sample_ids)
    return await scoring


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(MOST_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


def ids_of(found: list[Any]) -> list[int]:
    return sorted(f.sample_id if isinstance(f, Rollout) else f.rollout.sample_id for f in found)


# Dispatch


def test_an_aborted_response_is_sent_out_again_with_its_seed_and_never_passed_on(ray_cluster: None) -> None:
    aborts = Plan(faults={3: ["abort"], 5: ["abort"] * 2})
    bench = generators(2, Fakes(FakeGenerator, otherwise=aborts))

    async def go() -> None:
        async with bench.opened() as pool:
            rollouts = await write(pool, 12)
            assert ids_of(rollouts) == list(range(12))
            assert {int(r.token_ids[1]) for r in rollouts} == {sample_seed(0, i) for i in range(12)}
            assert {r.stop_reason for r in rollouts} == {"stop"}
            sent = [i for calls in await bench.fakes.calls() for call in calls for i in call]
            assert sent.count(3) >= 2 <= sent.count(5)

    run(go())


def test_a_sample_that_is_always_aborted_stops_the_run(ray_cluster: None) -> None:
    bench = generators(1, Fakes(FakeGenerator, otherwise=Plan(faults={3: ["abort"] * 99})))

    async def go() -> None:
        async with bench.opened() as pool:
            await write(pool, 6)

    with pytest.raises(RuntimeError, match="sample 3 was aborted 4 times"):
        run(go())


@pytest.mark.parametrize(("max_staleness", "in_flight", "bound"), [(0, "drain", 4), (1, "drain", 4), (1, "keep", 5)])
def test_a_replica_has_what_its_engine_takes_at_most_with_some_to_spare_where_no_sync_waits_for_them(
    ray_cluster: None, max_staleness: int, in_flight: str, bound: int
) -> None:
    schedule = (f"max_staleness={max_staleness}", f"in_flight={in_flight}")
    bench = generators(3, None, "generator.engine.max_num_seqs=4", *schedule)

    async def go() -> None:
        async with bench.opened() as pool:
            assert len(await write(pool, 50)) == 50
            assert sorted(i for calls in await bench.fakes.calls() for call in calls for i in call) == list(range(50))
            most = await asyncio.gather(*(lives[-1].most.remote() for lives in bench.fakes.lives.values()))
            assert all(1 < m <= bound for m in most)
            assert max(most) == bound

    run(go())


def test_a_deterministic_run_gives_each_replica_its_samples_at_once_and_in_order(ray_cluster: None) -> None:
    bench = generators(3, None, "deterministic=true")

    async def go() -> None:
        async with bench.opened() as pool:
            await write(pool, 10)
            assert await bench.fakes.calls() == [[[0, 3, 6, 9]], [[1, 4, 7]], [[2, 5, 8]]]

    run(go())


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_teachers_score_everything_once_in_batches_bounded_by_tokens(ray_cluster: None, deterministic: str) -> None:
    bench = teachers(2, None, "teacher.max_batch_tokens=60", f"deterministic={deterministic}")

    async def go() -> None:
        async with bench.opened() as pool:
            scored = await pool.score(stream(*reversed(range(40))), 1)
            assert [s.rollout.sample_id for s in scored] == list(range(40))
            assert all(s.scores.logprobs.shape == (TOKENS,) and s.scores.sample_id == s.rollout.sample_id for s in scored)
            calls = await bench.fakes.calls()
            assert all(share and max(map(len, share)) == 3 for share in calls)  # of 20 tokens each
            assert sorted(i for share in calls for call in share for i in call) == list(range(40))
            if deterministic == "true":
                assert next(call for share in calls for call in share) == [0, 2, 4]

    run(go())


def test_a_response_longer_than_the_bound_is_scored_alone(ray_cluster: None) -> None:
    bench = teachers(1, None, "teacher.max_batch_tokens=10")

    async def go() -> None:
        async with bench.opened() as pool:
            assert len(await pool.score(stream(2, 1, 0), 1)) == 3
            assert await bench.fakes.calls() == [[[2], [1], [0]]]

    run(go())


def test_a_teachers_own_error_ends_the_step_and_costs_no_worker(ray_cluster: None) -> None:
    bench = teachers(2, Fakes(FakeTeacher, otherwise=Plan(faults={13: ["raise"]})))

    async def go() -> None:
        async with bench.opened() as pool:
            with pytest.raises(RuntimeError, match="the teacher fell over"):
                await pool.score(stream(*range(14)), 1)
            assert (pool.size, bench.restarts) == (2, 0)

    run(go())


def test_a_payload_waits_until_the_budget_has_room_and_never_for_a_younger_step(ray_cluster: None) -> None:
    budget = PayloadBudget(6 * TOKENS, batch_size=4, sample_bytes=TOKENS)  # a step and a half
    bench = teachers(2, None, budget=budget)

    async def go() -> None:
        async with bench.opened() as pool:
            budget.open(1)
            budget.open(2)
            younger = asyncio.create_task(pool.score(stream(4, 5, 6, 7), 2))
            await until(lambda: budget.held == 2 * TOKENS and not pool.workers.in_flight())
            assert pool.status()["queue"] == 2
            assert ids_of(await pool.score(stream(0, 1, 2, 3), 1)) == [0, 1, 2, 3]
            await asyncio.sleep(0.3)
            assert (budget.held, pool.status()["queue"], younger.done()) == (6 * TOKENS, 2, False)
            budget.close(1)
            pool.dispatch()
            assert ids_of(await younger) == [4, 5, 6, 7]
            assert budget.held == 4 * TOKENS

    run(go())


# Workers that are lost


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_generator_is_replaced_and_its_samples_come_back_once_with_their_seeds(ray_cluster: None, fault: str) -> None:
    bench = generators(2, Fakes(FakeGenerator, {0: [Plan(faults={3: [fault]}, seconds=0.3)]}), *FAULTS[fault], *QUICK)

    async def go() -> None:
        async with bench.opened() as pool:
            lost = psutil.Process(pool.workers.all[0].pid)
            rollouts = await write(pool, 12)  # the first replica has 0 to 5, and has written 0 to 2 when it is lost
            assert ids_of(rollouts) == list(range(12))
            assert all(int(r.token_ids[1]) == sample_seed(0, r.sample_id) for r in rollouts)
            await until(lambda: pool.size == 2)
            calls = [i for share in await bench.fakes.calls() for call in share for i in call]
            assert sorted(calls) == list(range(3, 12))
            assert (bench.restarts, len(bench.fakes.lives[0]), len(bench.fakes.lives[1])) == (1, 2, 1)
            assert_gone(lost)

    run(go())
    assert_told(bench, fault)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_teacher_is_replaced_and_its_batch_is_scored_once(ray_cluster: None, fault: str) -> None:
    budget = PayloadBudget(UNBOUNDED, 12, TOKENS)
    budget.open(1)
    plans = {0: [Plan(faults={1: [fault]})]}
    bench = teachers(2, Fakes(FakeTeacher, plans), "teacher.max_batch_tokens=60", *FAULTS[fault], *QUICK, budget=budget)

    async def go() -> None:
        async with bench.opened() as pool:
            lost = psutil.Process(pool.workers.all[0].pid)
            scored = await score_together(pool, *range(12))
            assert ids_of(scored) == list(range(12))
            await until(lambda: pool.size == 2)
            calls = [i for share in await bench.fakes.calls() for call in share for i in call]
            assert sorted(calls) == list(range(12))
            assert budget.held == 12 * TOKENS
            assert bench.restarts == 1
            assert_gone(lost)

    run(go())
    assert_told(bench, fault)


def assert_told(bench: Bench, fault: str) -> None:
    (note,) = bench.notes
    assert note.startswith(f"pool {bench.pool.name}: replica 0 is lost: ")
    assert re.search(LOST[fault], note)


def assert_gone(process: psutil.Process) -> None:
    """One that is stopped, too, is ended, so that its resources are free."""
    gone, _ = psutil.wait_procs([process], timeout=30)
    assert gone or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_a_sample_that_kills_whoever_writes_it_is_rejected_and_nobody_else_is(
    ray_cluster: None, tmp_path: Path, deterministic: str
) -> None:
    fakes = Fakes(FakeGenerator, otherwise=Plan(faults={7: ["die"]}))
    bench = generators(2, fakes, f"deterministic={deterministic}", rejected=tmp_path / "rejected.jsonl")

    async def go() -> None:
        async with bench.opened() as pool:
            assert ids_of(await write(pool, 12)) == [i for i in range(12) if i != 7]

    run(go())
    assert_only_the_seventh_is_rejected(bench, tmp_path)


def test_a_sample_that_kills_whoever_scores_it_is_rejected_and_frees_its_budget(ray_cluster: None, tmp_path: Path) -> None:
    budget = PayloadBudget(12 * TOKENS, 12, TOKENS)
    budget.open(1)
    fakes = Fakes(FakeTeacher, otherwise=Plan(faults={7: ["die"]}))
    bench = teachers(2, fakes, "teacher.max_batch_tokens=60", budget=budget, rejected=tmp_path / "rejected.jsonl")

    async def go() -> None:
        async with bench.opened() as pool:
            assert ids_of(await score_together(pool, *range(12))) == [i for i in range(12) if i != 7]
            assert budget.held == 11 * TOKENS

    run(go())
    assert_only_the_seventh_is_rejected(bench, tmp_path)


def assert_only_the_seventh_is_rejected(bench: Bench, folder: Path) -> None:
    (line,) = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert (line["sample_id"], line["row"], line["where"]) == (7, "7", bench.pool.name)
    assert "two workers died while running only this sample" in line["reason"]
    assert bench.log.ids == {7}
    assert bench.restarts == 4


def test_a_slot_whose_workers_all_die_ends_the_run_and_shows_their_last_words(ray_cluster: None) -> None:
    fakes = Fakes(FakeGenerator, {0: [Plan(seconds=SLOW)]}, otherwise=Plan(dies_at_ping=2))
    bench = generators(1, fakes)

    async def go() -> None:
        async with bench.opened() as pool:
            pool.resize(2)
            with pytest.raises(CrashLoopError) as caught:
                await write(pool, 1)
            text = str(caught.value)
            assert "generator[1] died 5 times within" in text
            assert "5 times: " in text, "the deaths have one reason"
            assert "| this machine is not well" in text
            assert len(fakes.lives[1]) == 5
            await asyncio.sleep(0.5)
            assert len(fakes.lives[0]) == 1, "a worker that was well was started again"

    run(go())


def test_workers_that_cannot_start_any_more_end_the_run_and_say_why(ray_cluster: None) -> None:
    fakes = Fakes(FakeGenerator, {0: [Plan(faults={0: ["die"]})]}, otherwise=Plan(refuses=True))
    bench = generators(1, fakes)

    async def go() -> None:
        async with bench.opened() as pool:
            await write(pool, 1)

    with pytest.raises(CrashLoopError, match=r"4 times: .*there is no such model"):
        run(go())


def test_a_first_worker_that_cannot_start_ends_the_run_at_once(ray_cluster: None) -> None:
    bench = generators(1, Fakes(FakeGenerator, otherwise=Plan(refuses=True)))

    async def go() -> None:
        async with bench.opened():
            pass

    with pytest.raises(NotStartedError, match=r"pool generator: replica 0 did not start: \w+: there is no such model"):
        run(go())
    assert len(bench.fakes.lives[0]) == 1


def test_a_teacher_that_does_not_agree_with_the_first_one_never_serves(ray_cluster: None) -> None:
    config, prepared = demo()
    plans = {1: [Plan(logprob=-1.1)]}
    bench = teachers(1, Fakes(FakeTeacher, plans), "teacher.max_batch_tokens=20", check=Probe(prepared, config, "").check)

    async def go() -> None:
        async with bench.opened() as pool:
            pool.resize(2)
            await until(lambda: bench.restarts == 1)
            assert pool.size == 1
            await until(lambda: pool.size == 2)
            scored = await pool.score(stream(*range(20)), 1)
            assert {s.scores.replica for s in scored} == {"0", "1"}
            assert {float(s.scores.logprobs[0]) for s in scored} == {-1.0}

    run(go())
    (note,) = bench.notes
    assert "replica 1 is lost: its log-probabilities of fixed texts differ by 0.1 on average" in note


def test_of_teachers_that_start_side_by_side_one_is_the_first(ray_cluster: None) -> None:
    config, prepared = demo()
    # Either may answer first and so be the one that the other is compared with: each slot's second replica agrees with it.
    plans = {0: [Plan(logprob=-1.0), Plan(logprob=-9.0)], 1: [Plan(logprob=-9.0), Plan(logprob=-1.0)]}
    bench = teachers(2, Fakes(FakeTeacher, plans), check=Probe(prepared, config, "").check)

    async def go() -> None:
        async with bench.opened():
            await until(lambda: bench.pool.size == 2 and bench.restarts >= 1)

    run(go())
    assert bench.restarts == 1
    assert any("differ by 8 on average" in note for note in bench.notes)


@pytest.mark.parametrize(("noise", "restarts"), [(0.0, 1), (0.04, 0)])
def test_rounding_that_the_first_replica_shows_is_not_held_against_a_later_one(
    ray_cluster: None, noise: float, restarts: int
) -> None:
    config, prepared = demo()
    probe = Probe(prepared, config, "")
    bench = teachers(1, Fakes(FakeTeacher, {0: [Plan(noise=noise)], 1: [Plan(logprob=-1.1)]}), check=probe.check)

    async def go() -> None:
        async with bench.opened() as pool:
            pool.resize(2)
            await until(lambda: pool.size == 2)

    run(go())
    assert probe.tolerance == pytest.approx(max(1e-4, 4 * noise), rel=1e-3)
    assert bench.restarts == restarts


# A number that changes


def test_one_becomes_three_becomes_one_in_the_middle_of_work_and_nothing_is_lost(ray_cluster: None) -> None:
    fakes = Fakes(FakeGenerator, otherwise=Plan(seconds=SLOW))
    bench = generators(1, fakes, "generator.engine.max_num_seqs=4")

    async def go() -> None:
        async with bench.opened() as pool:
            writing = asyncio.create_task(write(pool, 40))
            await until(lambda: pool.workers.in_flight() == 4)
            pool.resize(3)
            await until(lambda: pool.workers.in_flight() == 12)
            own = {w.name: set(w.jobs) for w in pool.workers.all}
            pool.resize(1)
            assert [w.state for w in pool.workers.all] == ["serving", "leaving", "leaving"]
            await asyncio.gather(*(fakes.lives[slot][0].hurry.remote() for slot in (1, 2)))
            await until(lambda: [w.name for w in pool.workers.all] == ["0"])
            assert (pool.workers.in_flight(), pool.status()["queue"]) == (4, 28), "one that left was given more to do"
            await fakes.lives[0][0].hurry.remote()
            rollouts = await writing
            assert ids_of(rollouts) == list(range(40))
            assert {name: {r.sample_id for r in rollouts if r.replica == name} for name in "12"} == {n: own[n] for n in "12"}
            assert [len(lives) for lives in fakes.lives.values()] == [1, 1, 1]

    run(go())
    assert bench.notes == []


def test_a_pool_that_asks_for_more_than_the_cluster_has_says_so_and_works_with_what_there_is(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_SECONDS", 0.5)
    most_of_it = ray.available_resources()["CPU"] // 2 + 2
    bench = generators(2, Fakes(FakeGenerator, cpus=most_of_it))

    async def go() -> None:
        async with bench.opened(all_of_them=False) as pool:
            assert ids_of(await write(pool, 6)) == list(range(6))
            await until(lambda: pool.status()["waiting"] == 1)
            await until(lambda: bool(bench.notes))
            assert ids_of(await write(pool, 6)) == list(range(6))
            pool.resize(1)  # the one that waits is not wanted any more
            await until(lambda: [w.name for w in pool.workers.all] == [pool.workers.serving[0].name])
            assert bench.restarts == 0

    run(go())
    (note,) = bench.notes
    assert "waits for resources that the cluster does not have; the run continues with 1" in note


# Holding work back


def test_a_drained_pool_begins_to_be_quiet_when_nothing_is_in_flight_and_goes_on_afterwards(ray_cluster: None) -> None:
    fakes = Fakes(FakeGenerator, otherwise=Plan(seconds=SLOW))
    bench = generators(1, fakes, "generator.engine.max_num_seqs=4")

    async def go() -> None:
        async with bench.opened() as pool:
            writing = asyncio.create_task(write(pool, 20))
            await until(lambda: pool.workers.in_flight() == 4)
            paused = pool.paused_dispatch(drain=True)
            entering = asyncio.ensure_future(paused.__aenter__())
            await asyncio.sleep(0.3)
            assert not entering.done()
            await fakes.lives[0][0].hurry.remote()
            await entering
            assert (pool.workers.in_flight(), pool.status()["queue"]) == (0, 16)
            await asyncio.sleep(0.3)
            assert (pool.workers.in_flight(), pool.status()["queue"]) == (0, 16)
            await paused.__aexit__(None, None, None)
            assert ids_of(await writing) == list(range(20))

    run(go())


def test_what_was_cancelled_is_forgotten_and_a_worker_that_does_not_stop_is_replaced(ray_cluster: None) -> None:
    fakes = Fakes(FakeGenerator, {0: [Plan(seconds=SLOW)], 1: [Plan(faults={2: ["hang"]})]})
    # The one that stops must not be late, nor may its slow responses be, on a machine that does much else.
    bench = generators(2, fakes, "generator.engine.max_num_seqs=2", "faults.deadline_seconds=8")

    async def go() -> None:
        async with bench.opened() as pool:
            await cancel_all(pool, 20, in_flight=4)
            assert pool.status()["queue"] == 0
            await until(lambda: bench.restarts >= 1 and pool.size == 2)
            assert bench.restarts == 1, bench.notes
            assert pool.workers.in_flight() == 0
            await fakes.lives[0][0].hurry.remote()
            assert ids_of(await write(pool, 20)) == list(range(20))
            assert [len(lives) for lives in fakes.lives.values()] == [1, 2], "one that did stop was given up"

    run(go())


def test_a_worker_that_is_told_to_stop_before_it_begins_stops(ray_cluster: None) -> None:
    bench = generators(1, Fakes(FakeGenerator, otherwise=Plan(late=0.5, seconds=SLOW)), "faults.deadline_seconds=20")

    async def go() -> None:
        async with bench.opened() as pool:
            await cancel_all(pool, 2, in_flight=2)
            assert pool.workers.in_flight() == 0 == bench.restarts, bench.notes

    run(go())


@pytest.mark.parametrize("replica", [Generator, Teacher, HiddenTeacher, TorchTeacher])
def test_real_replicas_have_the_verbs_that_pools_ask_for(replica: type) -> None:
    for verb in ("ready", "ping", "busy_seconds", "cancel_all"):
        assert callable(getattr(replica, verb, None)), f"{replica.__name__}.{verb}"
    assert hasattr(replica, "write") == (replica in (Teacher, TorchTeacher))
