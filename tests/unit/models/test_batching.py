"""Splitting a step's batch: nothing is lost, nothing is doubled, every rank does the same number of passes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.models.batching import area, balance, micro_batches, pack, plan, unpacked

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
    for packing, lay in ((True, pack), (False, unpacked)):
        for batch in micro_batches(samples, budget, packing=packing):
            assert batch
            assert len(batch) == 1 or area(lay(batch)) <= budget


@for_all
@given(batches)
def test_a_budget_for_all_of_them_makes_one_micro_batch(samples: list[Sample]) -> None:
    whole = len(samples) * max((s.tokens for s in samples), default=0)
    assert len(micro_batches(samples, whole)) == min(1, len(samples))
    assert len(micro_batches(samples, 1)) == len(samples)


@for_all
@given(batches)
def test_rows_hold_every_sample_once_and_cost_no_more_than_a_row_for_each(samples: list[Sample]) -> None:
    rows = pack(samples)
    assert ids([sample for row in rows for sample in row]) == ids(samples)
    assert all(rows) or not samples
    assert area(rows) == len(rows) * max((load(row) for row in rows), default=0)
    assert area(rows) <= area(unpacked(samples))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([64, 96, 256]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([512, 1024, 8192]),
    st.sampled_from(["log-normal", "exponential", "even", "one length"]),
)
def test_nine_tenths_of_the_computed_tokens_are_of_samples(seed: int, n: int, ranks: int, longest: int, kind: str) -> None:
    """Long tails: a mean about a fifth of the longest, that may occur several times, cut off there."""
    rng = np.random.default_rng(seed)
    drawn = {
        "log-normal": rng.lognormal(np.log(longest / 5) - 0.5, 1.0, n),
        "exponential": rng.exponential(longest / 5, n),
        "even": rng.uniform(1, longest, n),
        "one length": np.full(n, longest),
    }[kind]
    samples = [Sample(i, 40 + max(1, min(longest, int(tokens)))) for i, tokens in enumerate(drawn)]
    shares = plan(samples, ranks, 16384)
    assert load(samples) >= 0.9 * sum(area(pack(batch)) for rank in shares for batch in rank)


def test_a_thousand_samples_a_rank_are_planned_in_no_time() -> None:
    rng = np.random.default_rng(0)
    samples = [Sample(i, int(tokens)) for i, tokens in enumerate(rng.integers(1, 1024, 4096))]
    started = time.process_time()
    plan(samples, 4, 16384)
    assert time.process_time() - started < 2


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
