"""Which split is best: against all of them, and with GPUs that are not all alike to a replica."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from typing import Literal

import pytest

from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.rates import AT_ONCE, GeneratorRate, Rates, TeacherRate, TrainerRate
from renio_pipeline.planning.schedule import replay
from renio_pipeline.planning.search import Room, best_splits, least_seconds, with_gpus, writing_seconds
from renio_pipeline.planning.workload import Split, Work

RATES = Rates(
    generator=GeneratorRate(16, {1: 100.0, 16: 900.0}),
    teacher=TeacherRate(2000.0, 1000.0, batch_seconds=0.05),
    trainer=TrainerRate(1500.0, step_seconds=0.3, exchange_bytes=1e9, link=(1e10, 2e9)),
    sync_seconds=0.2,
    weigh_seconds=0.02,
)
LENGTHS = Lengths.log_normal(150, 600, "given")
ON_POLICY = Work(lengths=lambda number: LENGTHS.step(32, number), prompt_tokens=50, teacher_prompt_tokens=50)
SCHEDULES: list[tuple[int, Literal["drain", "keep"]]] = [(0, "drain"), (1, "keep"), (1, "drain")]


def all_splits(room: Room) -> Iterator[Split]:
    most = int(room.gpus)
    for g, t, r in product(range(1, most), repeat=3):
        if room.least_ranks <= r <= room.most_ranks and t % room.teacher_pools == 0 and room.used(Split(g, t, r)) <= room.gpus:
            yield Split(g, t, r)


@pytest.mark.parametrize(("max_staleness", "in_flight"), SCHEDULES)
@pytest.mark.parametrize(
    "room",
    [
        Room(gpus=8, most_ranks=32),
        Room(gpus=9, teacher=2, most_ranks=32),
        Room(gpus=8, teacher_pools=2, least_ranks=2, most_ranks=4),
    ],
    ids=["8", "wide teachers", "two teachers"],
)
def test_none_of_all_splits_is_better_than_the_best_by_more_than_the_search_lets_go(
    room: Room, max_staleness: int, in_flight: Literal["drain", "keep"]
) -> None:
    work = replace(ON_POLICY, max_staleness=max_staleness, in_flight=in_flight)
    found = best_splits(RATES, room, work)
    best = min(replay(RATES, split, work).step for split in all_splits(room))
    assert best <= found[0][1].step <= 1.02 * best
    assert [f.step for _, f in found] == sorted(f.step for _, f in found)
    assert all(split.teachers % room.teacher_pools == 0 and split.ranks >= room.least_ranks for split, _ in found)


def test_bounds_are_below_what_they_bound() -> None:
    for split in all_splits(Room(gpus=7, most_ranks=32)):
        bound = least_seconds(RATES, split, ON_POLICY, writing_seconds(RATES, split.generators, ON_POLICY))
        assert bound <= replay(RATES, split, ON_POLICY).step + 1e-9


def test_more_gpus_are_never_worse() -> None:
    room = Room(gpus=16, most_ranks=32)
    steps = [best_splits(RATES, with_gpus(room, gpus), ON_POLICY, count=1)[0][1].step for gpus in (3, 4, 6, 8, 12, 16)]
    assert all(more <= 1.01 * fewer for fewer, more in pairwise(steps))


@pytest.mark.parametrize(
    ("room", "split", "holds"),
    [
        (Room(gpus=8), Split(4, 2, 2), True),
        (Room(gpus=8), Split(4, 2, 3), False),
        (Room(gpus=8, teacher=4), Split(2, 1, 2), True),
        (Room(gpus=12, teacher=8, gpus_per_node=8), Split(2, 1, 2), True),
        (Room(gpus=12, teacher=8, gpus_per_node=6), Split(2, 1, 2), False),  # no node has eight
        (
            Room(gpus=16, generator=3, teacher=3, gpus_per_node=8),
            Split(4, 1, 1),
            False,
        ),  # two to a node, and two GPUs left over
        (Room(gpus=16, generator=3, teacher=3, gpus_per_node=8), Split(3, 1, 4), True),
        (Room(gpus=4, generator=0.5, teacher=0.5, rank=1), Split(4, 2, 1), True),
        (Room(gpus=4, colocated=True), Split(3, 1, 3), True),
        (Room(gpus=4, colocated=True), Split(4, 1, 4), False),
    ],
)
def test_a_replica_lies_on_one_node(room: Room, split: Split, holds: bool) -> None:
    assert room.holds(split) == holds


def test_a_split_leaves_no_gpu_that_a_generator_could_have() -> None:
    for split in Room(gpus=13, generator=2, most_ranks=8).splits():
        assert 13 - 2 < 2 * split.generators + split.teachers + split.ranks <= 13


def test_colocated_generators_are_as_many_as_ranks() -> None:
    found = list(Room(gpus=5, colocated=True, most_ranks=8).splits())
    assert found == [Split(r, 5 - r, r) for r in range(1, 5)]
    assert [s.teachers for s in Room(gpus=8, colocated=True, teacher_pools=2, most_ranks=8).splits()] == [6, 6, 4, 4, 2, 2]


def test_a_slow_link_between_nodes_keeps_the_ranks_on_one() -> None:
    slow = replace(RATES, trainer=replace(RATES.trainer, exchange_bytes=4e9, link=(1e11, 1e9), gpus_per_node=4))
    assert best_splits(slow, Room(gpus=32, gpus_per_node=4, most_ranks=32), ON_POLICY)[0][0].ranks <= 4


@pytest.mark.parametrize(("max_staleness", "in_flight"), SCHEDULES)
def test_without_a_teacher_no_gpu_and_no_time_is_one_s(max_staleness: int, in_flight: Literal["drain", "keep"]) -> None:
    room, work = (
        Room(gpus=8, teacher=0.0, teacher_pools=0, most_ranks=32),
        replace(ON_POLICY, max_staleness=max_staleness, in_flight=in_flight),
    )
    assert list(room.splits()) == [Split(8 - ranks, 0, ranks) for ranks in range(1, 8)]
    assert room.least == 2
    found = best_splits(RATES, room, work)
    for split, replayed in found:
        assert replayed.idle.keys() == {"generator", "trainer"}
        assert least_seconds(RATES, split, work, writing_seconds(RATES, split.generators, work)) <= replayed.step * 1.001
        at_once = replay(replace(RATES, teacher=AT_ONCE), replace(split, teachers=1), work)
        assert replayed.step == pytest.approx(at_once.step, rel=1e-6)
    assert list(replace(room, colocated=True).splits()) == [Split(ranks, 0, ranks) for ranks in range(1, 9)]
