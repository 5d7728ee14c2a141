"""The loss of GRPO: a policy gradient on the verifier's rewards (arXiv 2402.03300)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from renio_pipeline.config.schema import Grpo
from renio_pipeline.config.sections import NO_TEACHER, SAMPLED, TeacherPayload
from renio_pipeline.objectives.base import FewEntries, MicroBatch, advantages_of, column_of
from renio_pipeline.types import TrainSample

if TYPE_CHECKING:
    from torch import Tensor

    from renio_pipeline.objectives.token_loss import PerToken


class Clipped(FewEntries):
    """The policy gradient of method grpo: advantages times importance ratios that are clipped on both sides."""

    type: Literal["clipped"] = "clipped"
    clip_low: float = Field(0.2, gt=0, le=1, description="An importance ratio below 1 - clip_low has no gradient.")
    clip_high: PositiveFloat = Field(0.2, description="An importance ratio above 1 + clip_high has no gradient.")
    kl: NonNegativeFloat = Field(
        0.0,
        description="Coefficient of the divergence from the student's first weights, which then serve as a teacher; 0: none.",
    )

    @property
    def payload(self) -> TeacherPayload:
        return SAMPLED if self.kl else NO_TEACHER

    def check(self, config: Any) -> None:
        if not isinstance(config.method, Grpo):
            raise ValueError(
                f"objective clipped is the loss of method grpo, and method.type is {config.method.type}; set method.type=grpo, "
                "or reward.coefficient to add rewards to a distillation"
            )

    def entries(self, batch: MicroBatch) -> tuple[Tensor, PerToken]:
        from renio_pipeline.policy_loss import clipped_policy_loss, reference_divergence

        behaviour_N, advantages_N = batch.column("student_logprobs"), batch.advantages
        reference_N = batch.column("teacher_logprobs") if self.kl else None

        def per_token(logprobs: Tensor, rows: slice) -> Tensor:
            own = logprobs[:, 0]
            loss = clipped_policy_loss(own, behaviour_N[rows], advantages_N[rows], low=self.clip_low, high=self.clip_high)
            return loss if reference_N is None else loss + self.kl * reference_divergence(own, reference_N[rows])

        return batch.targets[:, None], per_token

    def measured(self, samples: Sequence[TrainSample], student_logprobs: Tensor) -> dict[str, float]:
        """The share of tokens whose ratio is clipped, and with ``kl`` the divergence from the first weights."""
        from renio_pipeline.policy_loss import is_clipped, reference_divergence

        given = column_of(samples, "student_logprobs", student_logprobs.device), advantages_of(samples, student_logprobs.device)
        found = {"policy/clipped": float(is_clipped(student_logprobs, *given, low=self.clip_low, high=self.clip_high).sum())}
        if self.kl:
            reference = column_of(samples, "teacher_logprobs", student_logprobs.device)
            found["policy/kl"] = float(reference_divergence(student_logprobs, reference).sum())
        return found
