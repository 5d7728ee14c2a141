"""Cross-entropy of the response's own tokens: the loss of supervised fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from renio_pipeline.config.schema import Sft
from renio_pipeline.config.sections import NO_TEACHER, TeacherPayload
from renio_pipeline.objectives.base import FewEntries, MicroBatch

if TYPE_CHECKING:
    from torch import Tensor

    from renio_pipeline.objectives.token_loss import PerToken


class Nll(FewEntries):
    """The negative log-likelihood of each token of a solution: the loss of method sft."""

    type: Literal["nll"] = "nll"
    normalization: Literal["sample", "token"] = Field(
        "token",
        description="token: the mean over all response tokens of the batch, so that a sample counts by its length; sample: the "
        "mean over samples of each one's mean over its tokens.",
    )

    @property
    def payload(self) -> TeacherPayload:
        return NO_TEACHER

    def check(self, config: Any) -> None:
        if not isinstance(config.method, Sft):
            raise ValueError(
                f"objective nll is the loss of method sft, and method.type is {config.method.type}; set method.type=sft, or "
                "data.off_policy to add solutions to a distillation"
            )

    def entries(self, batch: MicroBatch) -> tuple[Tensor, PerToken]:
        return batch.targets[:, None], lambda logprobs, rows: -logprobs[:, 0]
