"""What may be scored before it is trained on: the bound holds whatever comes, and the oldest step never waits."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.stages.payload_budget import PayloadBudget


@dataclass
class Steps:
    """Steps under way: every sample has a size of its own, which it keeps when its scoring is lost and sent again."""

    budget: PayloadBudget
    sizes: dict[int, list[int]]  # step -> bytes of each of its samples
    waiting: dict[int, set[int]] = field(default_factory=dict)  # open step -> indices of samples that were not taken
    taken: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)  # open step -> batches of indices

    def open(self, step: int) -> None:
        self.budget.open(step)
        self.waiting[step], self.taken[step] = set(range(len(self.sizes[step]))), []

    def dispatch(self, step: int, samples: tuple[int, ...]) -> bool:
        """Take a batch, if it fits."""
        size = self.bytes(step, samples)
        if not self.budget.fits(step, size):
            return False
        self.budget.take(step, len(samples), size)
        self.waiting[step] -= set(samples)
        self.taken[step].append(samples)
        return True

    def lose(self, step: int, batch: int) -> None:
        samples = self.taken[step].pop(batch)
        self.budget.give_back(step, len(samples), self.bytes(step, samples))
        self.waiting[step] |= set(samples)

    def close(self, step: int) -> None:
        self.budget.close(step)
        del self.waiting[step], self.taken[step]

    def bytes(self, step: int, samples: tuple[int, ...]) -> int:
        return sum(self.sizes[step][i] for i in samples)

    @property
    def held(self) -> int:
        return sum(self.bytes(step, batch) for step, batches in self.taken.items() for batch in batches)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Steps, int]:
    """Steps 1 to n, of up to batch_size samples of up to sample_bytes, and a budget from hardly enough to plenty."""
    batch_size, sample_bytes = draw(st.integers(1, 6)), draw(st.sampled_from([1, 7, 100]))
    most = batch_size * sample_bytes + draw(st.integers(0, 3 * batch_size * sample_bytes))
    sample = st.one_of(st.just(sample_bytes), st.integers(0, sample_bytes))
    sizes = draw(st.lists(st.lists(sample, max_size=batch_size), min_size=1, max_size=6))
    return Steps(PayloadBudget(most, batch_size, sample_bytes), dict(enumerate(sizes, 1))), most


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["open", "dispatch", "dispatch", "dispatch", "lose", "close"]), st.integers(0, 5), st.integers(0, 63)
    ),
    max_size=80,
)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(workloads(), EVENTS)
@pytest.mark.slow
def test_never_above_the_bound_and_the_oldest_step_never_waits(
    workload: tuple[Steps, int], events: list[tuple[str, int, int]]
) -> None:
    steps, most = workload
    to_open = list(steps.sizes)
    for action, which, bits in events:
        if action == "open" and to_open:
            steps.open(to_open.pop(0))
        if action == "open" or not steps.waiting:
            continue
        step = sorted(steps.waiting)[which % len(steps.waiting)]
        if action == "dispatch" and (wanted := tuple(i for i in steps.waiting[step] if bits >> i & 1)):
            assert steps.dispatch(step, wanted) or step != min(steps.waiting)
        elif action == "lose" and steps.taken[step]:
            steps.lose(step, bits % len(steps.taken[step]))
        elif action == "close":  # trained on, or dropped
            steps.close(step)
        assert steps.budget.held == steps.held <= most
    end_all(steps, most)


def end_all(steps: Steps, most: int) -> None:
    """The oldest step takes its whole batch and goes, then the next one, and so on: nothing is left."""
    while steps.waiting:
        oldest = min(steps.waiting)
        for sample in sorted(steps.waiting[oldest]):
            assert steps.dispatch(oldest, (sample,))
            assert steps.budget.held <= most
        steps.close(oldest)
    assert steps.budget.held == 0


@settings(deadline=None, derandomize=True, max_examples=200)
@given(workloads(), st.integers(0, 2**32))
@pytest.mark.slow
def test_greedy_teachers_end_every_step_in_order(workload: tuple[Steps, int], seed: int) -> None:
    """All steps are open at once, the youngest samples are tried first, and a step is trained on only when it is whole."""
    steps, most = workload
    rng = random.Random(seed)
    for step in steps.sizes:
        steps.open(step)
    while steps.waiting:
        for step in sorted(steps.waiting, reverse=rng.random() < 0.8):
            for sample in sorted(steps.waiting[step]):
                steps.dispatch(step, (sample,))
                assert steps.budget.held <= most
            if steps.taken[step] and rng.random() < 0.2:
                steps.lose(step, rng.randrange(len(steps.taken[step])))
        oldest = min(steps.waiting)
        for sample in sorted(steps.waiting[oldest]):
            assert steps.dispatch(oldest, (sample,)), "the oldest step waits: nothing can ever end"
        steps.close(oldest)
    assert steps.budget.held == 0


def test_a_younger_step_leaves_room_for_the_worst_of_all_older_ones() -> None:
    budget = PayloadBudget(100, batch_size=4, sample_bytes=10)
    for step in (1, 2, 3):
        budget.open(step)
    assert budget.fits(3, 20)
    assert not budget.fits(3, 21)
    budget.take(1, samples=3, bytes=5)  # smaller than the worst by 25
    assert budget.fits(3, 45)
    assert not budget.fits(3, 46)
    budget.take(3, 4, 40)
    assert budget.fits(2, 45)
    assert not budget.fits(2, 46)
    budget.give_back(1, 3, 5)
    assert budget.held == 40
    assert budget.fits(2, 20)
    assert not budget.fits(2, 21)
    budget.close(1)
    assert budget.fits(2, 60)  # it is the oldest now
    budget.close(2)
    budget.close(3)
    assert budget.held == 0


def test_a_step_that_took_more_samples_than_its_batch_reserves_nothing() -> None:
    budget = PayloadBudget(40, batch_size=2, sample_bytes=10)
    budget.open(1)
    budget.open(2)
    budget.take(1, 5, 10)
    assert budget.fits(2, 30)
    assert not budget.fits(2, 31)


def test_without_payloads_everything_fits() -> None:
    budget = PayloadBudget(1, batch_size=10**6, sample_bytes=0)
    for step in (1, 2):
        budget.open(step)
        assert budget.fits(step, 0)
        budget.take(step, 10**6, 0)
    assert budget.held == 0


def test_a_bound_below_one_step_is_refused_with_both_numbers() -> None:
    PayloadBudget(320, 32, 10)
    with pytest.raises(ValueError, match=r"payload.max_bytes \(319\) .* batch_size \(32\) .* 320 bytes together"):
        PayloadBudget(319, 32, 10)


def test_a_scoring_that_is_lost_after_its_step_was_dropped_gives_nothing_back() -> None:
    budget = PayloadBudget(100, 2, 10)
    budget.open(1)
    budget.take(1, 2, 20)
    budget.close(1)
    budget.open(2)
    budget.take(2, 1, 10)
    budget.give_back(1, 2, 20)
    assert budget.held == 10


def test_a_scoring_that_is_lost_after_the_run_went_back_gives_nothing_back() -> None:
    budget = PayloadBudget(100, 2, 10)
    budget.open(1)
    budget.take(1, 2, 20)
    budget.reset()
    budget.give_back(1, 2, 20)
    budget.open(1)
    budget.take(1, 1, 10)
    assert budget.held == 10


def test_after_a_rollback_the_same_steps_are_opened_again() -> None:
    budget = PayloadBudget(100, 2, 10)
    for _ in range(2):
        for step in (4, 5):
            budget.open(step)
            budget.take(step, 2, 20)
        budget.give_back(4, 1, 10)
        assert budget.held == 30
        for step in (5, 4):
            budget.close(step)
        assert budget.held == 0


def test_misuse_names_the_step() -> None:
    budget = PayloadBudget(100, 2, 10)
    for use in (
        lambda: budget.fits(3, 1),
        lambda: budget.take(3, 1, 1),
        lambda: budget.close(3),
        lambda: budget.give_back(3, 1, 1),
    ):
        with pytest.raises(ValueError, match="step 3 is not open"):
            use()
    budget.open(3)
    for step in (2, 3):
        with pytest.raises(ValueError, match=f"step {step} is opened after step 3"):
            budget.open(step)
    budget.take(3, 1, 5)
    for samples, size in ((2, 5), (1, 6)):
        with pytest.raises(ValueError, match=rf"step 3 gives back {samples} samples of {size} bytes, but holds 1 of 5"):
            budget.give_back(3, samples, size)
