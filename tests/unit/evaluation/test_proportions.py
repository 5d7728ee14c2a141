"""Intervals of proportions: their known values, and how often they hold the truth where trials come in clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.evaluation.proportions import clustered
from renio_pipeline.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(50, 100, 0.40383, 0.59617), (0, 10, 0, 0.27753), (9, 10, 0.59585, 0.98212), (10, 10, 0.72247, 1), (1, 1, 0.20655, 1)],
)
def test_wilsons_interval_has_its_known_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-5)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_around_the_proportion_and_within_0_and_1(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= successes / trials <= high + 1e-12
    mirrored = wilson(trials - successes, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


def test_no_success_and_no_failure_stay_within_0_and_1_to_the_last_digit() -> None:
    assert all(wilson(0, n)[0] >= 0 and wilson(n, n)[1] <= 1 for n in range(1, 1000))


def test_trials_that_do_not_cluster_have_wilsons_interval() -> None:
    successes = np.array([1] * 30 + [0] * 70)
    found = clustered(successes, np.ones(100))
    assert found is not None
    low, high = wilson(30, 100)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, low, high), abs=0.002)


def test_trials_that_are_all_alike_within_a_cluster_count_once() -> None:
    once = clustered(np.array([1] * 30 + [0] * 70), np.ones(100))
    repeated = clustered(np.array([8] * 30 + [0] * 70), np.full(100, 8))
    assert once is not None
    assert repeated is not None
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_without_any_success_each_cluster_counts_once() -> None:
    found = clustered(np.zeros(40), np.full(40, 4))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.0, *wilson(0, 40)))


def test_there_is_no_share_without_trials_and_clusters_without_any_do_not_count() -> None:
    assert clustered(np.zeros(3), np.zeros(3)) is None
    assert clustered(np.array([1, 0, 0]), np.array([2, 0, 3])) == clustered(np.array([1, 0]), np.array([2, 3]))


@pytest.mark.parametrize("spread", [0.3, 3.0, 300.0])
def test_the_interval_of_clusters_holds_the_truth_as_often_as_it_says(spread: float) -> None:
    """The chance of success differs from cluster to cluster: a Beta distribution around 0.2, from wide to hardly any."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        chance = rng.beta(0.2 * spread, 0.8 * spread, 60)
        found = clustered(rng.binomial(4, chance), np.full(60, 4))
        assert found is not None
        held += found.low <= 0.2 <= found.high
    assert 0.93 <= held / 1000 <= 0.975
