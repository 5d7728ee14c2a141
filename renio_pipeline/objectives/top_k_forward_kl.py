"""Forward KL on the teacher's top K."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from renio_pipeline.config.sections import TeacherPayload, top_k
from renio_pipeline.objectives.base import FewEntries, MicroBatch
from renio_pipeline.objectives.fetched import split

if TYPE_CHECKING:
    from torch import Tensor

    from renio_pipeline.objectives.token_loss import PerToken


class TopKForwardKL(FewEntries):
    """Forward KL on the teacher's top K and the sampled token, plus one tail entry for the remaining mass."""

    mixes: ClassVar[bool] = True
    type: Literal["top_k_forward_kl"] = "top_k_forward_kl"
    k: PositiveInt = Field(32, description="How many of the teacher's likeliest tokens the divergence covers.")
    tail: bool = Field(
        True, description="Add one entry for the probability mass outside the top k; false renormalises over the top k."
    )
    entry_clip: PositiveFloat | None = Field(
        None, description="Clamp every vocabulary entry to [0, entry_clip] before the sum; null: no bound."
    )
    token_clip: PositiveFloat | None = Field(
        None, description="Upper bound on each token's divergence, after the sum; null: no bound."
    )

    @property
    def payload(self) -> TeacherPayload:
        return top_k(self.k)

    def entries(self, batch: MicroBatch) -> tuple[Tensor, PerToken]:
        import torch

        from renio_pipeline.divergence import top_k_forward_kl, top_k_support
        from renio_pipeline.objectives.mixture import mixed_top_k

        parts, weights = split([batch.payload[s.sample_id] for s in batch.samples])
        device = batch.targets.device
        ids = [torch.cat([torch.tensor(t.token_ids) for t in tables]).long().to(device) for tables in parts]
        teachers = [torch.cat([torch.tensor(t.logprobs) for t in tables]).to(device) for tables in parts]
        one_support_NK = top_k_support(ids[0], tail=self.tail) if len(parts) == 1 else None

        def teacher(student: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            """Log-probabilities of the rows' tokens, and which of them count."""
            if one_support_NK is not None:
                return teachers[0][rows], one_support_NK[rows]
            return mixed_top_k([i[rows] for i in ids], [t[rows] for t in teachers], weights, student, tail=self.tail)

        def per_token(logprobs: Tensor, rows: slice) -> Tensor:
            teacher_RC, support_RC = teacher(logprobs[:, 1:], rows)
            return top_k_forward_kl(
                logprobs[:, 1:],
                teacher_RC,
                support_RC,
                tail=self.tail,
                entry_clip=self.entry_clip,
                token_clip=self.token_clip,
            )

        return torch.cat([batch.targets[:, None], *ids], dim=1), per_token
