"""The weightings once more, in plain NumPy and token by token, from their definitions alone: what the package must agree with.

Log-probabilities are lists of float32 arrays, one a sample. Nothing here imports the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Rows = Sequence[np.ndarray]


def after_pivotal(student: Rows, teacher: Rows, threshold: float, gamma: float) -> list[list[float]]:
    """1 up to and including the first token whose log-ratio reaches the threshold, γ after it."""
    found = []
    for own, other in zip(student, teacher, strict=True):
        factors, seen = [], False
        for s, t in zip(own, other, strict=True):
            factors.append(gamma if seen else 1.0)
            seen = seen or bool(np.float32(s) - np.float32(t) >= np.float32(threshold))
        found.append(factors)
    return found


def renio(student: Rows, teacher: Rows, threshold: float, clip: float, strength: float) -> list[float]:
    """1 + λ (w − 1), where w = raw / mean(raw), at most 10, and raw = exp of the mean clipped log-ratio of pivotal tokens."""
    raw = []
    for own, other in zip(student, teacher, strict=True):
        ratios = [min(float(np.float32(s) - np.float32(t)), clip) for s, t in zip(own, other, strict=True)]
        pivotal = [r for r in ratios if np.float32(r) >= np.float32(threshold)]
        raw.append(math.exp(math.fsum(pivotal) / len(pivotal)) if pivotal else 1.0)
    mean = math.fsum(raw) / len(raw)
    return [1 + strength * (min(r / mean, 10.0) - 1) for r in raw]


def iw(student: Rows, teacher: Rows, gamma: float) -> list[list[float]]:
    """1 + γ (1 − Σ_{i<t} |A_i| / Σ_i |A_i|); an infinite |A| counts 1 and every finite one beside it 0."""
    found = []
    for own, other in zip(student, teacher, strict=True):
        sizes = [abs(float(np.float32(s) - np.float32(t))) for s, t in zip(own, other, strict=True)]
        if math.inf in sizes:
            sizes = [1.0 if size == math.inf else 0.0 for size in sizes]
        total = math.fsum(sizes)
        found.append([1 + gamma * (1 - (math.fsum(sizes[:t]) / total if total else 0.0)) for t in range(len(sizes))])
    return found


def paced(rows: Sequence[str], verdicts: Sequence[str | None]) -> list[float]:
    """p (1 − p) over the mean of the samples whose prompt has a p; 1 for the others, 0 where that mean is 0."""
    raw: list[float | None] = []
    for row in rows:
        graded = [v for r, v in zip(rows, verdicts, strict=True) if r == row and v is not None]
        p = sum(v == "correct" for v in graded) / len(graded) if graded else None
        raw.append(None if p is None else p * (1 - p))
    known = [r for r in raw if r is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    return [1.0 if r is None else r / mean if mean else 0.0 for r in raw]
