"""Splitting a step's batch: nothing is lost, nothing is doubled, every rank does the same number of passes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.batching import balance, micro_batches, plan

for_all = settings(deadline=None, derandomize=True)


@dataclass(frozen=True)
class Sample:
    sample_id: int
    tokens: int


batches = st.lists(st.integers(1, 60), max_size=24).map(lambda sizes: [Sample(i, n) for i, n in enumerate(sizes)])
small_batches = st.lists(st.integers(1, 40), min_size=1, max_size=7).map(
    lambda sizes: [Sample(i, n) for i, n in enumerate(sizes)]
)
ranks = st.integers(1, 5)
budgets = st.integers(1, 200)


def ids(batch: list[Sample]) -> list[int]:
    return sorted(sample.sample_id for sample in batch)


def load(share: list[Sample]) -> int:
    return sum(sample.tokens for sample in share)


@for_all
@given(batches, ranks, budgets)
def test_every_sample_is_in_exactly_one_micro_batch(samples: list[Sample], n: int, budget: int) -> None:
    flat = [sample for rank in plan(samples, n, budget) for batch in rank for sample in batch]
    assert ids(flat) == ids(samples)


@for_all
@given(batches, ranks, budgets)
def test_every_rank_runs_the_same_number_of_micro_batches_and_one_of_them_fills_its_own(
    samples: list[Sample], n: int, budget: int
) -> None:
    shares = plan(samples, n, budget)
    assert len(shares) == n
    assert len({len(share) for share in shares}) == 1
    assert not samples or any(all(share) for share in shares)


@for_all
@given(batches, ranks, budgets)
def test_empty_micro_batches_come_last(samples: list[Sample], n: int, budget: int) -> None:
    for share in plan(samples, n, budget):
        filled = [bool(batch) for batch in share]
        assert filled == sorted(filled, reverse=True)


@for_all
@given(batches, budgets)
def test_padded_tokens_stay_in_the_budget_unless_a_sample_is_alone(samples: list[Sample], budget: int) -> None:
    for batch in micro_batches(samples, budget):
        assert batch
        assert len(batch) == 1 or max(s.tokens for s in batch) * len(batch) <= budget


@for_all
@given(batches)
def test_a_budget_for_all_of_them_makes_one_micro_batch(samples: list[Sample]) -> None:
    whole = len(samples) * max((s.tokens for s in samples), default=0)
    assert len(micro_batches(samples, whole)) == min(1, len(samples))
    assert len(micro_batches(samples, 1)) == len(samples)


@for_all
@given(batches, ranks)
def test_ranks_differ_by_at_most_the_longest_sample(samples: list[Sample], n: int) -> None:
    loads = [load(share) for share in balance(samples, n)]
    assert max(loads) - min(loads) <= max((s.tokens for s in samples), default=0)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(small_batches, st.integers(1, 3))
def test_the_fullest_rank_is_within_a_third_of_the_best_split_there_is(samples: list[Sample], n: int) -> None:
    def fullest(assignment: tuple[int, ...]) -> int:
        return max(sum(s.tokens for s, r in zip(samples, assignment, strict=True) if r == rank) for rank in range(n))

    best = min(fullest(assignment) for assignment in product(range(n), repeat=len(samples)))
    found = max(load(share) for share in balance(samples, n))
    assert found <= best * (4 / 3 - 1 / (3 * n)) + 1e-9  # Graham's bound for longest-first
