"""What `renio plan` predicts, against the real loop and pools over engines that sleep: see ``tests/benchmarks/plan.py``."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.plan import BOUND, IDLE_BOUND, Case, rows_of
from tests.benchmarks.schedule import Mix
from tests.ray.conftest import run

MIX = Mix(name="generation", generate=0.8, score=0.3, train=0.4, sync=0.04, batch_size=32)
CASES = [Case(mix=MIX), Case(mix=MIX, max_staleness=1, in_flight="keep")]


def test_a_steps_time_and_idle_shares_are_what_was_predicted(ray_cluster: None, tmp_path: Path) -> None:
    for row in run(rows_of(CASES, 4, tmp_path)):
        assert abs(row.error) <= BOUND, row
        assert row.idle_error <= IDLE_BOUND, row
