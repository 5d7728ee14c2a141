"""The schedule in virtual time: cases with known answers, an independent simulation by ticks, and what must hold of any."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.rates import GeneratorRate, Rates, TeacherRate, TrainerRate
from renio_pipeline.planning.schedule import replay
from renio_pipeline.planning.workload import Replayed, Split, Work

InFlight = Literal["drain", "keep"]
# Three responses at a time take as long as one, a fourth makes all slower.
RATES = Rates(
    generator=GeneratorRate(4, {1: 100.0, 3: 300.0, 4: 320.0}),
    teacher=TeacherRate(1000.0, 350.0, batch_seconds=0.05),
    trainer=TrainerRate(2000.0, step_seconds=0.2),
    sync_seconds=0.1,
    weigh_seconds=0.02,
    between_seconds=0.01,
)


def steps_of(lengths: Sequence[float], **more: float | str) -> Work:
    return Work(lengths=lambda number: lengths, **more)  # type: ignore[arg-type]


def drawn(seed: int, size: int = 24) -> Work:
    """Lengths that differ from step to step."""

    def lengths(number: int) -> list[float]:
        rng = random.Random(1000 * seed + number)
        return [rng.lognormvariate(4.5, 0.6) for _ in range(size)]

    return Work(lengths=lengths, prompt_tokens=20.0, teacher_prompt_tokens=30.0)


def test_one_step_after_the_other_is_the_sum_of_its_parts() -> None:
    found = replay(RATES, Split(1, 1, 1), steps_of([100.0, 200.0, 300.0]))
    writing = 3.0  # three at a time lose nothing: the longest decides, and the others were scored meanwhile
    scoring, training = 0.05 + 0.3, 0.2 + 600 / 2000
    step = writing + scoring + 0.02 + training + 0.1
    assert found.steps == pytest.approx([step] * 4)  # the driver's pause goes by meanwhile
    assert found.parts["writing"] + found.parts["scoring of the last ones"] == pytest.approx(writing + scoring)
    assert found.idle["generator"] == pytest.approx(1 - 3 / found.step)
    assert found.idle["trainer"] == pytest.approx(1 - (training + 0.1) / found.step)
    assert found.slots_idle == pytest.approx(1 - 6 / (4 * found.step))
    assert found.idle["teacher"] == pytest.approx(1 - (3 * 0.05 + 0.6) / found.step)


def test_responses_share_a_generator_that_is_full() -> None:
    one = replay(RATES, Split(1, 1, 1), steps_of([80.0] * 4)).parts["writing"]
    assert one == pytest.approx(80 * 4 / 320)
    assert replay(RATES, Split(1, 1, 1), steps_of([80.0] * 8)).parts["writing"] == pytest.approx(2 * 80 * 4 / 320)
    assert replay(RATES, Split(2, 1, 1), steps_of([80.0] * 8)).parts["writing"] == pytest.approx(one)


@pytest.mark.parametrize(("slowest", "pool"), [("generator", "generator"), ("teacher", "teacher"), ("trainer", "trainer")])
def test_with_staleness_a_step_takes_what_its_slowest_stage_takes(slowest: str, pool: str) -> None:
    slow = {
        "generator": replace(RATES, generator=GeneratorRate(4, {1: 25.0, 4: 100.0})),
        "teacher": replace(RATES, teacher=TeacherRate(200.0, 350.0)),
        "trainer": replace(RATES, trainer=TrainerRate(150.0)),
    }[slowest]
    lengths = Lengths.log_normal(110, 800, "given")
    work = replace(drawn(1), lengths=lambda number: lengths.step(24, number), max_staleness=1, in_flight="keep")
    found = replay(slow, Split(2, 1, 1), work, counted=8)
    tokens = sum(work.lengths(1))
    alone = {
        "generator": tokens / 200 + 0.1,  # it holds still for a sync
        "teacher": (tokens + 24 * 30) / 200,
        "trainer": (tokens + 24 * 20) / 150 + 0.02 + 0.1 + 0.01,
    }
    assert found.step == pytest.approx(alone[slowest], rel=0.03)
    assert min(found.idle, key=lambda name: found.idle[name]) == pool


SCHEDULES: list[tuple[int, InFlight]] = [(0, "drain"), (1, "drain"), (1, "keep"), (2, "keep")]


@pytest.mark.parametrize(("max_staleness", "in_flight"), SCHEDULES)
@pytest.mark.parametrize(
    ("seed", "split"), [(1, Split(1, 1, 1)), (2, Split(4, 2, 1)), (3, Split(3, 1, 2)), (4, Split(16, 4, 2))]
)
@pytest.mark.slow
def test_it_agrees_with_a_simulation_that_knows_nothing_but_ticks(
    seed: int, split: Split, max_staleness: int, in_flight: InFlight
) -> None:
    work = replace(drawn(seed, 24 if split.generators < 16 else 120), max_staleness=max_staleness, in_flight=in_flight)
    found = replay(RATES, split, work)
    first = max_staleness + 2 if max_staleness else 0
    ends = by_ticks(RATES, split, work, steps=first + 4 + max_staleness)
    assert found.step == pytest.approx((ends[first + 4] - ends[first]) / 4, rel=0.03)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1000), st.sampled_from(SCHEDULES))
def test_no_schedule_beats_its_bounds_and_none_loses_work(
    generators: int, teachers: int, ranks: int, seed: int, schedule: tuple[int, InFlight]
) -> None:
    work = replace(drawn(seed), max_staleness=schedule[0], in_flight=schedule[1])
    found = replay(RATES, Split(generators, teachers, ranks), work, counted=6)
    assert found.samples == 24
    assert all(0 <= share <= 1 for share in [*found.idle.values(), found.slots_idle])
    first = schedule[0] + 2 if schedule[0] else 0
    tokens = [sum(work.lengths(n)) for n in range(first + 1, first + 7)]
    trained = sum((t + 24 * 20) / (2000 * ranks) + 0.2 + 0.1 + 0.02 for t in tokens)
    assert sum(found.steps) >= trained
    if not schedule[0]:
        assert sum(found.steps) >= trained + sum(t / (generators * 320) for t in tokens)
        assert sum(found.steps) >= trained + sum(max(work.lengths(n)) / 100 for n in range(1, 7))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1000))
def test_another_replica_never_makes_a_step_longer(generators: int, teachers: int, ranks: int, seed: int) -> None:
    """But for what a batch of its own takes: teachers do not divide what waits, the first one takes it."""
    work, split = drawn(seed), Split(generators, teachers, ranks)
    before, batch = replay(RATES, split, work).step, RATES.teacher.seconds(350)
    assert replay(RATES, replace(split, generators=generators + 1), work).step <= before + batch
    assert replay(RATES, replace(split, teachers=teachers + 1), work).step <= before + batch
    assert replay(RATES, replace(split, ranks=ranks + 1), work).step <= before + 1e-9


def test_writing_alone_is_never_slower_with_more_generators() -> None:
    written = [_writing(Split(n, 1, 1)) for n in range(1, 26)]
    assert all(more <= fewer + 1e-9 for fewer, more in pairwise(written))
    assert written[-1] == pytest.approx(written[-2])  # 24 responses: the 25th generator has none


def _writing(split: Split) -> float:
    at_once = replace(RATES, teacher=TeacherRate(1e18, 1e18), trainer=TrainerRate(1e18))
    return replay(at_once, split, drawn(5)).parts["writing"]


def test_rates_grow_with_the_responses_at_a_time_until_they_saturate() -> None:
    rate = GeneratorRate(64, {1: 100.0, 8: 600.0, 16: 800.0})
    totals = [n / rate.token_seconds[n] for n in range(1, 65)]
    assert all(before <= after + 1e-9 for before, after in pairwise(totals))
    assert totals[0] == pytest.approx(100)
    assert totals[7] == pytest.approx(600)
    assert rate.best == pytest.approx(800) == pytest.approx(totals[63])
    with pytest.raises(ValueError, match="rates must be positive"):
        GeneratorRate(4, {1: 0.0})


@pytest.mark.parametrize("mean", [30.0, 200.0, 512.0, 1000.0, 1024.0])
def test_lengths_have_the_mean_that_they_were_given_and_never_pass_the_longest(mean: float) -> None:
    lengths = Lengths.log_normal(mean, 1024, "given")
    assert lengths.mean == pytest.approx(mean, rel=1e-3)
    assert lengths.longest <= 1024
    step = lengths.step(96, 1)
    assert sum(step) / 96 == pytest.approx(mean, rel=0.02)
    assert sorted(step) == sorted(lengths.step(96, 2))
    assert len(set(step)) == 1 or step != lengths.step(96, 2)


def by_ticks(rates: Rates, split: Split, work: Work, *, steps: int, tick: float = 0.004) -> list[float]:
    """When each step ended, by looking at everything again in every tick. Written from the pools and the loop alone."""
    writing: list[list[list[float]]] = [[] for _ in range(split.generators)]  # [tokens left, tokens, step]
    queue: list[list[float]] = []
    waiting: list[tuple[float, float]] = []  # (step, tokens)
    scoring: list[tuple[float, list[float]]] = [(0.0, []) for _ in range(split.teachers)]  # (until, steps)
    scored = [0] * (steps + 1)
    ends, opened, now = [0.0], 0, 0.0
    state, until, learning = "waits", 0.0, 1
    while len(ends) <= steps:
        while opened < min(len(ends) + work.max_staleness, steps):
            opened += 1
            queue += [[t, t, opened] for t in work.lengths(opened)]
        held, syncing = state in ("drains", "syncs"), state == "syncs"
        for own in writing:
            room = min(rates.generator.slots, -(-(len(queue) + sum(map(len, writing))) // split.generators)) - len(own)
            while queue and room > 0 and not held:
                own.append(queue.pop(0))
                room -= 1
        now += tick
        for own in [] if syncing else writing:
            for response in own:
                response[0] -= tick / rates.generator.token_seconds[len(own)]
            waiting += [(r[2], r[1]) for r in own if r[0] <= 0]
            own[:] = [r for r in own if r[0] > 0]
        waiting.sort(key=lambda job: job[0])
        for i, (busy, done) in enumerate(scoring):
            if busy <= now:
                for step in done:
                    scored[int(step)] += 1
                scoring[i] = _batch(rates, work, waiting, now)
        if state == "waits" and now >= until and learning <= opened and scored[learning] == len(work.lengths(learning)):
            lengths = [t + work.prompt_tokens for t in work.lengths(learning)]
            state, until = "trains", now + rates.weigh_seconds + rates.trainer.seconds(sum(lengths), max(lengths), split.ranks)
        if state == "trains" and now >= until:
            state = "drains"
        if state == "drains" and (work.in_flight == "keep" or not any(writing)):
            state, until = "syncs", now + rates.sync_seconds
        if state == "syncs" and now >= until:
            state, until, learning = "waits", now + rates.between_seconds, learning + 1
            ends.append(now)
    return ends


def _batch(rates: Rates, work: Work, waiting: list[tuple[float, float]], now: float) -> tuple[float, list[float]]:
    total, taken = 0.0, list[float]()
    while waiting and (not taken or total + waiting[0][1] + work.teacher_prompt_tokens <= rates.teacher.max_batch_tokens):
        step, tokens = waiting.pop(0)
        total += tokens + work.teacher_prompt_tokens
        taken.append(step)
    return (now + rates.teacher.seconds(total) if taken else now, taken)


def test_what_a_replay_says_is_of_whole_steps() -> None:
    found = replay(RATES, Split(2, 1, 1), drawn(7), counted=3)
    assert isinstance(found, Replayed)
    assert len(found.steps) == 3
    assert found.samples_per_second == pytest.approx(24 / found.step)
