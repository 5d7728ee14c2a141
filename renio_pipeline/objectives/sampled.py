"""Policy gradient on the sampled token (k1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat

from renio_pipeline.config.sections import SAMPLED, TeacherPayload
from renio_pipeline.objectives.base import FewEntries, MicroBatch

if TYPE_CHECKING:
    from torch import Tensor

    from renio_pipeline.objectives.token_loss import PerToken


class Sampled(FewEntries):
    """Policy gradient on the sampled token (k1): the teacher sends one number a token."""

    type: Literal["sampled"] = "sampled"
    student_tokens_only: ClassVar[bool] = True
    importance_clip: PositiveFloat | None = Field(
        2.0,
        description="With max_staleness, or recorded responses: bound of the importance ratio towards the policy that wrote "
        "them; null: no correction.",
    )

    @property
    def payload(self) -> TeacherPayload:
        return SAMPLED

    def on_policy(self) -> Sampled:
        return self.model_copy(update={"importance_clip": None})  # there is no older policy to correct for

    def entries(self, batch: MicroBatch) -> tuple[Tensor, PerToken]:
        from renio_pipeline.loss import sampled_token_loss

        teacher_N, clip = batch.column("teacher_logprobs"), self.importance_clip
        behaviour_N = None if clip is None else batch.column("student_logprobs")  # by the generator that sampled them

        def per_token(logprobs: Tensor, rows: slice) -> Tensor:
            behaviour = None if behaviour_N is None else behaviour_N[rows]
            return sampled_token_loss(logprobs[:, 0], teacher_N[rows], behaviour_logprobs=behaviour, importance_clip=clip)

        return batch.targets[:, None], per_token
