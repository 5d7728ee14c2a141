"""Weights of a step's global batch, the normaliser's state, and the diagnostics that go with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.config.schema import Renio, Uniform
from renio_pipeline.stages.engine_limits import Ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """One step's weights, in the order of the samples given."""

    weights: np.ndarray  # [B] float32
    raw: np.ndarray  # [B] float32, exp(mean pivotal ratio / temperature) whatever the weighting is
    pivotal: list[np.ndarray]  # of each sample: positions of its pivotal tokens, int32
    metrics: dict[str, float]
    running_mean: float | None = None  # of the `ema` normaliser, after this batch


class Weigher:
    """Weighs whole batches. Its state (the ``ema`` normaliser's running mean) goes into checkpoints."""

    def __init__(self, weighting: Renio | Uniform, running_mean: float | None = None) -> None:
        self._weighting, self._running_mean = weighting, running_mean

    def ready(self) -> Ready:
        """At once: it has no model."""
        return Ready(receivers=0)

    def ping(self) -> int:
        """This process's id: called in a concurrency group of its own, at once, whatever is being weighed."""
        return os.getpid()

    def running_mean(self) -> float | None:
        return self._running_mean

    def restore(self, running_mean: float | None) -> None:
        self._running_mean = running_mean

    def weigh(self, student: Sequence[np.ndarray], teacher: Sequence[np.ndarray]) -> Weighed:
        """``student`` and ``teacher``: of each sample, [T] log-probabilities of its response tokens."""
        import torch

        from renio_pipeline.weighting import effective_sample_size, pivotal_mask, pivotal_weights

        lengths = torch.tensor([len(s) for s in student])
        mask = torch.arange(int(lengths.max()) if len(student) else 0)[None, :] < lengths[:, None]
        student_BT, teacher_BT = _padded(student, mask), _padded(teacher, mask)
        w = self._weighting
        renio = w if isinstance(w, Renio) else Renio(threshold=w.threshold, clip=w.clip)
        found = pivotal_weights(
            student_BT,
            teacher_BT,
            mask,
            threshold=renio.threshold,
            clip=renio.clip,
            temperature=renio.temperature,
            normalization=renio.normalization,
            group_size=renio.group_size,
            running_mean=self._running_mean,
        )
        weights = found.weights if isinstance(w, Renio) else torch.ones_like(found.weights)
        self._running_mean = found.running_mean
        pivotal = pivotal_mask(student_BT, teacher_BT, mask, threshold=renio.threshold)
        tokens = max(1, int(lengths.sum()))
        ratios = (student_BT - teacher_BT)[mask]
        ratios = ratios[torch.isfinite(ratios)]  # a teacher may give a token no probability at all; weights clip that
        metrics = {
            "weights/max": float(weights.max()),
            "weights/min": float(weights.min()),
            "weights/effective_sample_size": effective_sample_size(weights),
            "pivotal/fraction": int(found.pivotal_count.sum()) / tokens,
            "ratio/mean": float(ratios.mean()) if len(ratios) else 0.0,
        }
        positions = [row.nonzero().squeeze(1).numpy().astype(np.int32) for row in pivotal]
        return Weighed(
            weights=weights.numpy(), raw=found.raw.numpy(), pivotal=positions, metrics=metrics, running_mean=found.running_mean
        )


def _padded(rows: Sequence[np.ndarray], mask):  # type: ignore[no-untyped-def]
    import torch

    padded = torch.zeros(mask.shape)
    padded[mask] = torch.tensor(np.concatenate(rows) if rows else np.empty(0), dtype=torch.float32)
    return padded
