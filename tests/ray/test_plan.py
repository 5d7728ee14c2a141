"""What `renio plan` predicts, against the real loop and pools over engines that sleep: see ``tests/benchmarks/plan.py``."""

from __future__ import annotations

from statistics import mean

import pytest

from tests.benchmarks.plan import BOUND, Case, Row, rows_of
from tests.benchmarks.schedule.mixes import Mix
from tests.ray.conftest import run

MIX = Mix(name="generation", generate=0.8, score=0.3, train=0.4, sync=0.04, batch_size=32)
BUSY_BOUND = 0.15  # the fakes count a response's work as it ends, which may be in the next step
CASES = [Case(mix=MIX), Case(mix=MIX, max_staleness=1, in_flight="keep")]


@pytest.fixture(scope="module")
def rows(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return run(rows_of(CASES, 4, tmp_path_factory.mktemp("plan")))


def test_a_step_takes_what_was_predicted_for_it(rows: list[Row]) -> None:
    """The machine's other work can only add to a run: its least disturbed step tells. `make bench` has the medians.

    Where generation runs ahead, the step after a disturbed one is shorter: all steps together tell.
    """
    on_policy, ahead = rows
    assert 0.97 <= min(on_policy.ratios) <= 1 + BOUND, on_policy
    assert min(ahead.ratios) <= 1 + BOUND, ahead
    assert mean(ahead.ratios) >= 1 - BOUND, ahead


def test_each_pool_works_as_long_as_was_predicted(rows: list[Row]) -> None:
    for row in rows:
        assert row.busy_error <= BUSY_BOUND, row
