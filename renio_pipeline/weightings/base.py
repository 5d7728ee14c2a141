"""What a weighting is, what it sees and what it returns.

Shape legend: B samples of the step's global batch, T_b response tokens of sample b.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import Pivotal
from renio_pipeline.config.sections import WeightingSection
from renio_pipeline.types import Verdict

if TYPE_CHECKING:
    from torch import Tensor

State = Any  # what JSON can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBatch:
    """The samples of a step, in the order of their ids. Everything is of response tokens alone."""

    sample_ids: Sequence[int]  # [B], unique in the run
    row_ids: Sequence[str]  # [B] the prompts' ids; samples of one prompt have the same
    token_ids: Sequence[np.ndarray]  # of each sample [T_b] int32, the end token included where the response stopped by itself
    student_logprobs: Sequence[np.ndarray]  # of each sample [T_b] float32, nats, at the distillation temperature
    teacher_logprobs: Sequence[np.ndarray]  # of each sample [T_b] float32, nats, at the distillation temperature
    verdicts: Sequence[Verdict | None]  # [B]; None where the task gives none
    off_policy: Sequence[bool] = ()  # [B], which the student did not write; empty: none. A weighting sees none of these
    pivotal: Pivotal = field(default_factory=Pivotal)  # what metrics and reports count as a pivotal token, see ``diagnostics``

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def lengths(self) -> np.ndarray:
        """[B] int64, response tokens of each sample; 0 for an empty response."""
        return np.array([len(tokens) for tokens in self.student_logprobs], np.int64)

    def part(self, places: Sequence[int]) -> ScoredBatch:
        """The samples at some places, in their order."""
        return ScoredBatch(
            sample_ids=[self.sample_ids[i] for i in places],
            row_ids=[self.row_ids[i] for i in places],
            token_ids=[self.token_ids[i] for i in places],
            student_logprobs=[self.student_logprobs[i] for i in places],
            teacher_logprobs=[self.teacher_logprobs[i] for i in places],
            verdicts=[self.verdicts[i] for i in places],
            pivotal=self.pivotal,
        )

    def padded(self) -> tuple[Tensor, Tensor, Tensor]:
        """student_logprobs and teacher_logprobs as [B, T] float32, padded on the right with 0, and the mask [B, T] bool."""
        import torch

        lengths = torch.as_tensor(self.lengths)
        mask = torch.arange(int(lengths.max()) if len(self) else 0)[None, :] < lengths[:, None]
        sides = []
        for rows in (self.student_logprobs, self.teacher_logprobs):
            side = torch.zeros(mask.shape)
            side[mask] = torch.tensor(np.concatenate(rows) if len(rows) else np.empty(0), dtype=torch.float32)
            sides.append(side)
        return sides[0], sides[1], mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a weighting makes of a batch. All of it is constant in the loss

    L = (1/B) Σ_b weights_b · (Σ_t token_factors_bt · d_bt) / max(1, T_b).
    """

    weights: np.ndarray  # [B] float, finite
    token_factors: Sequence[np.ndarray] | None = None  # of each sample [T_b] float, finite; None: all are 1
    state: State = None  # the weighting's state after this batch


class Weighting(WeightingSection):
    """Base of all weightings. Fields of a subclass are keys of the configuration's ``weighting`` section.

    An instance is immutable. What it has to remember from step to step is its state: whatever JSON can hold, ``None`` before
    the first step. The pipeline gives the state of the last step back to ``weigh``, writes it into checkpoints, and takes it up
    again when a run resumes or the weighting actor is replaced.
    """

    @abstractmethod
    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        """Weigh a step's whole batch, over all trainer ranks. Equal batches and states must give equal weights."""

    def state_metrics(self, state: State) -> dict[str, float]:
        """What a step's metrics show of the state after it, by names of ``renio_pipeline.metrics.registry``."""
        return {}


def weighting_of(config: RunConfig) -> Weighting:
    """A run's weighting."""
    assert isinstance(config.weighting, Weighting)
    return config.weighting
