"""The busy time of a place in a pool, whoever holds it: counted once, and remembered of its latest process alone."""

from __future__ import annotations

import pytest

from renio_pipeline.monitoring.replicas import Replicas


def busy(found: Replicas) -> dict[tuple[str, str], float]:
    (family,) = [family for family in found.collect("run") if family.name == "renio_replica_busy_seconds"]
    return {(s.labels["pool"], s.labels["replica"]): s.value for s in family.samples}


@pytest.mark.parametrize(("kind", "name", "pool"), [("generator", "0", "generator"), ("teacher", "maths/0", "teacher.maths")])
def test_a_replacement_goes_on_with_the_count_and_leaves_nothing_of_its_predecessor(kind: str, name: str, pool: str) -> None:
    found = Replicas()
    for process in range(1000):
        for seconds in (2.0, 3.0):
            found._worked(kind, {f"{name}/{process}": seconds})
    assert busy(found) == {(pool, "0"): 3000.0}
    assert len(found._seen) == 1


def test_a_replica_that_does_not_answer_once_is_not_counted_twice() -> None:
    found = Replicas()
    for answer in ({"0/7": 5.0, "1/8": 1.0}, {"1/8": 2.0}, {"0/7": 9.0, "1/8": 4.0}):
        found._worked("generator", answer)
    assert busy(found) == {("generator", "0"): 9.0, ("generator", "1"): 4.0}
