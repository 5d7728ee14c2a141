"""The criteria that a demo run must meet."""

from __future__ import annotations

from typing import Any

MIN_GAIN = 0.20
MIN_AUROC = 0.90
PIVOTAL = (0.01, 0.60)
MIN_WRONG_OVER_RIGHT = 2.0


def faults(outcome: dict[str, Any]) -> list[str]:
    """The criteria that a demo run did not meet, one message each.

    Args:
        outcome: what ``Run.run`` returned: ``evaluations`` by step, ``auroc`` of the raw weights, and the metrics of the
            ``first_step``.
    """
    first = outcome["first_step"]
    evaluations = [outcome["evaluations"][step]["accuracy"] for step in sorted(outcome["evaluations"])]
    gain = evaluations[-1] - evaluations[0]
    pivotal = first["pivotal/fraction"]
    checks = {
        f"accuracy rose by {gain:.1%}, expected at least {MIN_GAIN:.0%}": gain >= MIN_GAIN,
        f"AUROC of the weights is {outcome['auroc']}, expected at least {MIN_AUROC}": (outcome["auroc"] or 0) >= MIN_AUROC,
        f"{pivotal:.1%} of the first step's tokens are pivotal, expected {PIVOTAL[0]:.0%} to {PIVOTAL[1]:.0%}": (
            PIVOTAL[0] <= pivotal <= PIVOTAL[1]
        ),
        f"in the first step wrong answers weigh {first.get('weights/wrong_over_right')} times as much as right ones, "
        f"expected at least {MIN_WRONG_OVER_RIGHT}": first.get("weights/wrong_over_right", 0) >= MIN_WRONG_OVER_RIGHT,
    }
    return [text for text, good in checks.items() if not good]
