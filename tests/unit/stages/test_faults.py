"""Which slots cannot live, and which samples nobody survives. The pool that finds them is simulated."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.stages.faults import CrashLoopError, PoisonSamples, Slots

PROPERTY = settings(deadline=None, derandomize=True, max_examples=300)


def test_the_fifth_death_within_ten_minutes_is_a_crash_loop_that_says_all_that_is_known() -> None:
    slots = Slots()
    for now in (0.0, 150, 300, 450):
        slots.died("teacher.maths", 2, now, "exit code 1", "an old line")
    with pytest.raises(CrashLoopError) as caught:
        slots.died("teacher.maths", 2, 600, "out of memory", "\n".join(f"line {i}" for i in range(100)))
    text = str(caught.value)
    assert "teacher.maths[2] died 5 times within 600 s" in text
    assert "4 times: exit code 1" in text
    assert "1 times: out of memory" in text
    assert [line for line in text.splitlines() if "line" in line] == [f"  | line {i}" for i in range(80, 100)]


def test_without_a_log_nothing_is_quoted() -> None:
    slots = Slots()
    for now in range(4):
        slots.died("generator", 0, now, "killed", "")
    with pytest.raises(CrashLoopError) as caught:
        slots.died("generator", 0, 4, "killed", "")
    assert "log" not in str(caught.value)


@PROPERTY
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 1), st.sampled_from([0, 1, 100, 150, 151, 601]), st.booleans()),
        max_size=60,
    )
)
def test_it_is_raised_exactly_when_a_slot_died_five_times_in_ten_minutes_without_progress(
    events: list[tuple[str, int, int, bool]],
) -> None:
    slots, now = Slots(), 0.0
    since: dict[tuple[str, int], list[float]] = {}  # deaths since the last progress
    for pool, slot, later, progress in events:
        now += later
        if progress:
            slots.progress(pool, slot)
            since.pop((pool, slot), None)
            continue
        deaths = since.setdefault((pool, slot), [])
        deaths.append(now)
        if len(deaths) >= 5 and deaths[-1] - deaths[-5] <= 600:
            with pytest.raises(CrashLoopError):
                slots.died(pool, slot, now, "killed", "")
        else:
            slots.died(pool, slot, now, "killed", "")


def test_two_deaths_make_a_suspect_and_two_alone_reject_it() -> None:
    poison_samples = PoisonSamples()
    assert poison_samples.died([1, 2, 3], alone=False) == []
    assert not any(poison_samples.must_run_alone(i) for i in (1, 2, 3))
    assert poison_samples.died([3, 4], alone=False) == []
    assert [poison_samples.must_run_alone(i) for i in (1, 2, 3, 4)] == [False, False, True, False]
    assert poison_samples.died([3], alone=True) == []
    assert poison_samples.must_run_alone(3)
    assert poison_samples.died([3], alone=True) == [3]
    assert not poison_samples.must_run_alone(3), "it is forgotten"


def test_a_sample_that_came_back_is_forgotten() -> None:
    poison_samples = PoisonSamples()
    for _ in range(2):
        poison_samples.died([1], alone=False)
    poison_samples.died([1], alone=True)
    poison_samples.finished(1)
    poison_samples.finished(2)
    assert not poison_samples.must_run_alone(1)
    assert poison_samples.died([1], alone=True) == []


def test_a_worker_that_dies_with_nothing_in_flight_accuses_nobody() -> None:
    poison_samples = PoisonSamples()
    assert poison_samples.died([], alone=False) == poison_samples.died([], alone=True) == []


def test_several_samples_are_never_alone() -> None:
    with pytest.raises(ValueError, match=r"samples \[1, 2\] cannot all have run alone"):
        PoisonSamples().died([2, 1], alone=True)


@PROPERTY
@given(st.lists(st.sets(st.integers(0, 5), max_size=6), max_size=40))
def test_deaths_in_company_reject_nothing(deaths: list[set[int]]) -> None:
    poison_samples = PoisonSamples()
    seen: Counter[int] = Counter()
    for ids in deaths:
        assert poison_samples.died(ids, alone=False) == []
        seen.update(ids)
    assert {i for i in range(6) if poison_samples.must_run_alone(i)} == {i for i in range(6) if seen[i] >= 2}


class Pool:
    """Workers that hold up to ``room`` samples, and die with a poisonous one among them, or by chance in company."""

    def __init__(self, workers: int, room: int, samples: int, poison: set[int], chance: float, rng: random.Random) -> None:
        self.poison_samples, self.rng, self.poison, self.chance = PoisonSamples(), rng, poison, chance
        self.room, self.waiting = room, list(range(samples))
        self.workers: list[list[int]] = [[] for _ in range(workers)]
        self.exclusive = [False] * workers
        self.finished: list[int] = []
        self.rejected: list[int] = []
        self.deaths = 0  # not by chance
        rng.shuffle(self.waiting)

    def run(self) -> None:
        while self.waiting or any(self.workers):
            self.fill()
            busy = [i for i, held in enumerate(self.workers) if held]
            worker = self.rng.choice(busy)
            poisonous = bool(self.poison & set(self.workers[worker])) and self.rng.random() < 0.7  # it takes its time
            if poisonous or (not self.exclusive[worker] and self.rng.random() < self.chance):
                self.deaths += poisonous
                self.die(worker)
            else:
                self.finish(worker)

    def fill(self) -> None:
        for worker, held in enumerate(self.workers):
            while self.waiting and not self.exclusive[worker] and len(held) < self.room:
                alone = self.poison_samples.must_run_alone(self.waiting[-1])
                if alone and held:
                    break
                held.append(self.waiting.pop())
                self.exclusive[worker] = alone

    def die(self, worker: int) -> None:
        lost, self.workers[worker] = self.workers[worker], []
        rejected = self.poison_samples.died(lost, self.exclusive[worker])
        self.exclusive[worker] = False
        self.rejected += rejected
        self.waiting += [i for i in lost if i not in rejected]
        self.rng.shuffle(self.waiting)

    def finish(self, worker: int) -> None:
        if harmless := [i for i in self.workers[worker] if i not in self.poison]:
            done = self.rng.choice(harmless)
            self.workers[worker].remove(done)
            self.poison_samples.finished(done)
            self.finished.append(done)
            self.exclusive[worker] = False


@PROPERTY
@given(
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(0, 40),
    st.sets(st.integers(0, 39), max_size=6),
    st.sampled_from([0.0, 0.0, 0.1, 0.4]),
    st.integers(0, 2**32),
)
def test_exactly_the_poisonous_samples_are_rejected(
    workers: int, room: int, samples: int, poison: set[int], chance: float, seed: int
) -> None:
    poison = {i for i in poison if i < samples}
    pool = Pool(workers, room, samples, poison, chance, random.Random(seed))
    pool.run()
    assert sorted(pool.rejected) == sorted(poison)
    assert sorted(pool.finished) == sorted(set(range(samples)) - poison)
    assert pool.deaths <= 4 * len(poison)
