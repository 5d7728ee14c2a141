"""The pivotal tokens that metrics, samples and reports show, whatever the weighting is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renio_pipeline.config.schema import Pivotal
from renio_pipeline.weightings.base import ScoredBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class PivotalTokens:
    """Of B samples with T_b response tokens."""

    raw: np.ndarray  # [B] float32: ReNIO's raw weight, exp(mean pivotal log-ratio / temperature); 1 without a pivotal token
    positions: list[np.ndarray]  # of each sample, int32 positions of its pivotal tokens in the response
    metrics: dict[str, float]  # pivotal/fraction, pivotal/tokens_after (shares of all tokens), ratio/mean (nats)


def pivotal_tokens(batch: ScoredBatch, pivotal: Pivotal) -> PivotalTokens:
    """Find them. Raises ValueError for a log-ratio that is NaN, and for raw weights that overflow."""
    import torch

    from renio_pipeline.weighting import pivotal_mask, pivotal_weights

    student_BT, teacher_BT, mask = batch.padded()
    found = pivotal_weights(
        student_BT,
        teacher_BT,
        mask,
        threshold=pivotal.threshold,
        clip=pivotal.clip,
        temperature=pivotal.temperature,
        normalization="none",
    )
    marked = pivotal_mask(student_BT, teacher_BT, mask, threshold=pivotal.threshold)
    ratios = (student_BT - teacher_BT)[mask]
    after = marked.cumsum(dim=1).bool() & mask  # the first pivotal token of each sample, and all after it
    ratios = ratios[torch.isfinite(ratios)]  # a teacher may give a token no probability at all; weights clip that
    return PivotalTokens(
        raw=found.raw.numpy(),
        positions=[row.nonzero().squeeze(1).numpy().astype(np.int32) for row in marked],
        metrics={
            "pivotal/fraction": int(found.pivotal_count.sum()) / max(1, int(batch.lengths.sum())),
            "pivotal/tokens_after": int(after.sum() - after.any(dim=1).sum()) / max(1, int(batch.lengths.sum())),
            "ratio/mean": float(ratios.mean()) if len(ratios) else 0.0,
        },
    )
