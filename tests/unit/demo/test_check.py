"""What the demo demands of its own run."""

from __future__ import annotations

from typing import Any

import pytest

from renio_pipeline.demo.check import faults


def outcome(*, before: float = 0.40, after: float = 0.61, auroc: float | None = 0.91, **first: float) -> dict[str, Any]:
    """That of a run which just passes. Evaluations are by step, in any order: the last step's counts."""
    figures = {"pivotal/fraction": 0.1, "weights/wrong_over_right": 2.1} | first
    accuracies = {100: after, 0: before, 50: 0.99}
    return {
        "evaluations": {step: {"accuracy": accuracy} for step, accuracy in accuracies.items()},
        "auroc": auroc,
        "first_step": figures,
    }


def test_a_run_that_just_meets_every_criterion_has_no_fault() -> None:
    assert faults(outcome()) == []


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (outcome(after=0.59), "accuracy rose by 19.0%, expected at least 20%"),
        (outcome(before=0.61, after=0.40), "accuracy rose by -21.0%, expected at least 20%"),
        (outcome(auroc=0.89), "AUROC of the weights is 0.89, expected at least 0.9"),
        (outcome(auroc=None), "AUROC of the weights is None, expected at least 0.9"),
        (outcome(**{"pivotal/fraction": 0.009}), "0.9% of the first step's tokens are pivotal, expected 1% to 60%"),
        (outcome(**{"pivotal/fraction": 0.61}), "61.0% of the first step's tokens are pivotal, expected 1% to 60%"),
        (
            outcome(**{"weights/wrong_over_right": 1.9}),
            "wrong answers weigh 1.9 times as much as right ones, expected at least 2.0",
        ),
    ],
)
def test_each_criterion_that_is_not_met_is_a_fault_of_its_own(bad: dict[str, Any], told: str) -> None:
    (fault,) = faults(bad)
    assert told in fault


def test_a_first_step_without_wrong_answers_cannot_pass() -> None:
    bad = outcome()
    del bad["first_step"]["weights/wrong_over_right"]
    assert len(faults(bad)) == 1
