"""When a pool grows and shrinks. Loads are simulated: a stage, and two stages that wait for each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from renio_pipeline.config.schema import Autoscale
from renio_pipeline.control.autoscale_policy import Scaler

BUSY, IDLE, BETWEEN = (0.0, 5), (0.9, 0), (0.3, 1)  # (idle share, queue)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=300)


@st.composite
def limits(draw: st.DrawFn, most: int = 8) -> Autoscale:
    low = draw(st.integers(1, most))
    return Autoscale(min=low, max=draw(st.integers(low, most)), patience=draw(st.integers(1, 4)))


def sizes(scaler: Scaler, size: int, looks: list[tuple[float, int]]) -> list[int]:
    found = []
    for idle, queue in looks:
        size = scaler.look(size, idle=idle, queue=queue)
        found.append(size)
    return found


LOOKS = st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 3))


@PROPERTY
@given(limits(), st.integers(1, 12), st.lists(LOOKS, max_size=60))
def test_within_the_limits_by_one_at_a_time_and_only_after_patience(
    bounds: Autoscale, size: int, looks: list[tuple[float, int]]
) -> None:
    scaler, quiet = Scaler(bounds), 0
    for idle, queue in looks:
        was, size = size, scaler.look(size, idle=idle, queue=queue)
        assert abs(size - was) <= 1
        if not bounds.min <= was <= bounds.max:
            assert abs(size - was) == 1
            assert (size > was) == (was < bounds.min), "it moves away from the limits"
            quiet = 0
            continue
        assert bounds.min <= size <= bounds.max
        quiet += 1
        if size != was:
            assert quiet >= bounds.patience
            assert (queue > 0 and idle < 0.1) if size > was else (queue == 0 and idle > 0.5)
            quiet = 0


def test_it_grows_and_shrinks_after_patience_looks_in_a_row_and_counts_afresh() -> None:
    scaler = Scaler(Autoscale(min=1, max=4, patience=3))
    assert sizes(scaler, 1, [BUSY] * 12) == [1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert sizes(scaler, 4, [IDLE] * 12) == [4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("load", [BUSY, IDLE])
@pytest.mark.parametrize("other", [BETWEEN, (0.05, 0), (0.9, 1), (0.1, 9), (0.5, 0)])
def test_one_look_that_does_not_agree_starts_the_count_again(load: tuple[float, int], other: tuple[float, int]) -> None:
    scaler = Scaler(Autoscale(min=1, max=8, patience=3))
    assert sizes(scaler, 4, [load, load, other] * 5) == [4] * 15


def test_what_was_seen_of_another_size_does_not_count() -> None:
    scaler = Scaler(Autoscale(min=1, max=8, patience=3))
    assert sizes(scaler, 2, [BUSY] * 2) == [2, 2]
    assert sizes(scaler, 3, [BUSY] * 3) == [3, 3, 4], "somebody set another size in between"


def test_a_size_outside_of_the_limits_moves_towards_them_at_each_look() -> None:
    scaler = Scaler(Autoscale(min=3, max=4, patience=3))
    assert sizes(scaler, 1, [IDLE] * 4) == [2, 3, 3, 3]
    assert sizes(scaler, 7, [BUSY] * 4) == [6, 5, 4, 4]


def test_two_replicas_that_are_half_idle_stay_where_one_would_be_too_few() -> None:
    scaler = Scaler(Autoscale(min=1, max=4, patience=1))
    assert scaler.look(2, idle=0.52, queue=0) == 2, "a single one would be idle for 4 % and ask for the second one back"
    assert scaler.look(2, idle=0.56, queue=0) == 1


def turns(found: list[int]) -> list[int]:
    """The directions that sizes changed into, without repetitions: [1] grew; [1, -1] grew, then shrank."""
    steps = [b - a for a, b in pairwise(found) if a != b]
    return [d for i, d in enumerate(steps) if i == 0 or d != steps[i - 1]]


@PROPERTY
@given(limits(), st.floats(0, 10), st.integers(1, 8), st.lists(st.integers(0, 1), min_size=120, max_size=120))
@pytest.mark.slow
def test_a_constant_load_never_makes_it_turn_whatever_the_queue_at_a_look(
    bounds: Autoscale, load: float, size: int, queues: list[int]
) -> None:
    """The load is in replicas. Responses come in bursts, so a queue may or may not be there at the moment of a look."""
    assume(bounds.min <= size <= bounds.max)
    scaler, found = Scaler(bounds), [size]
    for queue in queues:
        found.append(scaler.look(found[-1], idle=1 - min(1.0, load / found[-1]), queue=queue))
    assert len(turns(found)) <= 1


@dataclass
class Stage:
    """Replicas that each serve ``rate`` samples in the time between two looks; samples are a fluid."""

    rate: float
    size: int = 1
    queue: float = 0.0
    sizes: list[int] = field(default_factory=list)

    @property
    def capacity(self) -> float:
        return self.size * self.rate

    def serve(self, share: float = 1.0) -> float:
        """What leaves in ``share`` of the time between two looks."""
        done = min(self.queue, self.capacity * share)
        self.queue -= done
        return done

    def look(self, scaler: Scaler, served: float) -> None:
        self.size = scaler.look(self.size, idle=1 - served / self.capacity, queue=int(self.queue + 1e-6))
        self.sizes.append(self.size)


@PROPERTY
@given(limits(), st.integers(1, 10), st.integers(0, 30), st.integers(0, 200), st.data())
@pytest.mark.slow
def test_a_stage_finds_a_size_for_its_arrivals_and_stays(
    bounds: Autoscale, rate: int, arrivals: int, backlog: int, data: st.DataObject
) -> None:
    stage, scaler = Stage(rate, data.draw(st.integers(bounds.min, bounds.max)), backlog), Scaler(bounds)
    found = [stage.size]
    for _ in range(1600):
        stage.queue += arrivals
        stage.look(scaler, stage.serve())
    found += stage.sizes
    assert turns(found) in ([], [1], [-1], [1, -1]), "at most it grows for the backlog, and shrinks once that is gone"
    if bounds.max * rate <= arrivals:
        assert stage.size == bounds.max or stage.capacity == arrivals, "it is too small, though it might have grown"
        return
    assert set(stage.sizes[-200:]) == {stage.size}
    assert stage.queue == 0
    load = arrivals / rate  # in replicas
    assert stage.size == bounds.min or load / stage.size >= 0.5 or load / (stage.size - 1) > 0.9, "it is too large"


def couple(generator: Stage, teacher: Stage, trainer_rate: float, bounds: Autoscale, looks: int) -> None:
    """A closed circle: a window of samples (what staleness allows) is written, scored, trained on and asked for again.

    It begins as it would go on without scaling: all that waits does so for the slowest.
    """
    stages, scalers, parts = [generator, teacher, Stage(trainer_rate)], (Scaler(bounds), Scaler(bounds)), 10
    min(stages, key=lambda stage: stage.capacity).queue = 20
    for _ in range(looks):
        served = [0.0] * 3
        for _ in range(parts):
            moved = [stage.serve(1 / parts) for stage in stages]
            served = [a + b for a, b in zip(served, moved, strict=True)]
            for stage, came in zip(stages, [moved[-1], *moved[:-1]], strict=True):
                stage.queue += came
        for stage, scaler, done in zip(stages, scalers, served, strict=False):
            stage.look(scaler, done)


COUPLED = settings(deadline=None, derandomize=True, max_examples=40)


@COUPLED
@given(st.floats(1, 10), st.floats(1, 10))
def test_of_two_stages_the_slower_one_grows(generator_rate: float, teacher_rate: float) -> None:
    assume(max(generator_rate, teacher_rate) > 1.3 * min(generator_rate, teacher_rate))
    generator, teacher = Stage(generator_rate), Stage(teacher_rate)
    slower, faster = (generator, teacher) if generator_rate < teacher_rate else (teacher, generator)
    couple(generator, teacher, 1000, Autoscale(min=1, max=2, patience=2), looks=6)
    first = next(i for i, size in enumerate(slower.sizes) if size > 1)
    assert all(size == 1 for size in faster.sizes[: first + 1])


@COUPLED
@given(st.floats(1, 10), st.floats(1, 10), st.floats(1, 20))
def test_two_coupled_stages_keep_up_with_the_trainers_and_stay(generator: float, teacher: float, trainer: float) -> None:
    stages = Stage(generator), Stage(teacher)
    bounds = Autoscale(min=1, max=8, patience=2)
    couple(*stages, trainer, bounds, looks=100)
    reachable = min(trainer, *(bounds.max * stage.rate for stage in stages))
    for stage in stages:
        assert stage.capacity >= 0.85 * reachable, "it holds the others up"
        assert stage.size == 1 or reachable / stage.capacity >= 0.45 or stage.size == 2, "it is too large"
        assert set(stage.sizes[-40:]) == {stage.size}
