"""The weight of a response as a predictor of a wrong answer, and its ablations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renio_pipeline.metrics.auroc import auroc
from renio_pipeline.types import Verdict

WEIGHT = "weight"
SCORES = {
    WEIGHT: "mean of the pivotal tokens' clipped log-ratios",
    "no threshold": "mean of all tokens' clipped log-ratios",
    "no clip": "mean of the pivotal tokens' log-ratios",
    "mean log-ratio": "mean of all tokens' log-ratios: neither threshold nor clip",
    "sequence log-ratio": "sum of all tokens' log-ratios",
}


def scores(student: np.ndarray, teacher: np.ndarray, *, threshold: float, clip: float) -> dict[str, float]:
    """Each of SCORES for one response; 0 if there is nothing to average.

    Args:
        student, teacher: [T] log-probabilities of the response's tokens, in nats.
        threshold, clip: of the ReNIO weight (arXiv 2606.23104), in nats.
    """
    ratios = student.astype(np.float64) - teacher.astype(np.float64)
    pivotal = ratios >= threshold
    return {
        WEIGHT: _mean(np.minimum(ratios, clip)[pivotal]),
        "no threshold": _mean(np.minimum(ratios, clip)),
        "no clip": _mean(ratios[pivotal]),
        "mean log-ratio": _mean(ratios),
        "sequence log-ratio": float(ratios.sum()),
    }


def areas(
    student: Sequence[np.ndarray],
    teacher: Sequence[np.ndarray],
    verdicts: Sequence[Verdict | None],
    *,
    threshold: float,
    clip: float,
    prefix: int | None = None,
) -> dict[str, float | None]:
    """The AUROC of each score as a predictor of an incorrect answer; None if all verdicts are equal.

    Args:
        student, teacher: [T] log-probabilities of each response's tokens, in nats.
        threshold, clip: see ``scores``.
        prefix: compute the scores from the first ``prefix`` tokens only.
    """
    wrong = np.array([v != "correct" for v in verdicts], bool)
    found = [scores(s[:prefix], t[:prefix], threshold=threshold, clip=clip) for s, t in zip(student, teacher, strict=True)]
    return {name: auroc(np.array([f[name] for f in found]), wrong) for name in SCORES}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
