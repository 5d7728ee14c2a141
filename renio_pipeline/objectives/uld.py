"""Distillation from the likeliest of a teacher's own tokens: ULD (arXiv 2402.12030) beside an exact divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from renio_pipeline.config.sections import TeacherPayload, top_k
from renio_pipeline.objectives.base import HeadFn, MicroBatch, Objective
from renio_pipeline.objectives.chunk_sizes import TOKEN_LOSS
from renio_pipeline.types import Aligned

if TYPE_CHECKING:
    from torch import Tensor

    from renio_pipeline.objectives.projection import Head

NONE = -1  # in place of a token


class Uld(Objective):
    """Exact where both vocabularies have a token, sorted where they differ, the span's ratio where tokens do not coincide.

    Like the hybrid loss of TRL's GOLD trainer, which merges the distributions of spans of several tokens; here such spans learn
    by their log-ratio, as in ``Sampled``, because the first token of a long span is no likely token to the other side.
    """

    type: Literal["uld"] = "uld"
    student_tokens_only: ClassVar[bool] = True
    reads_own_tokens: ClassVar[bool] = True
    k: PositiveInt = Field(32, description="How many of the teacher's likeliest tokens are compared with the student's.")
    sorted_weight: NonNegativeFloat = Field(
        1.0,
        description="Factor of the distance between both sides' sorted probabilities of tokens that the other side lacks; 0 "
        "leaves them out.",
    )
    importance_clip: PositiveFloat | None = Field(
        2.0, description="With max_staleness: bound of the importance ratio, for spans of several tokens; null: no correction."
    )

    @property
    def payload(self) -> TeacherPayload:
        return top_k(self.k)

    def check(self, config: Any) -> None:
        if alike := [name for name in config.all_teachers if name not in config.own_tokenizers]:
            raise ValueError(
                f"objective uld compares with a teacher's own tokens, and {config.teacher_key(alike[0], 'tokenizer')} is same; "
                "set it to own, or objective.type=top_k_forward_kl, which compares all of the teacher's likeliest tokens"
            )

    def on_policy(self) -> Uld:
        return self.model_copy(update={"importance_clip": None})  # there is no older policy to correct for

    def head_fn(self, batch: MicroBatch) -> HeadFn:
        import torch

        from renio_pipeline.divergence import own_tokens_divergence
        from renio_pipeline.loss import sampled_token_loss
        from renio_pipeline.objectives.token_loss import token_loss

        compared_N, teacher_NK, theirs_NK, number_N, known_nV = (
            torch.from_numpy(x).to(batch.targets.device) for x in _laid(batch)
        )
        shared_NK = theirs_NK >= 0
        ids_NK = torch.cat([batch.targets[:, None], theirs_NK.clamp(min=0)], dim=1)
        # Tokens that are compared learn nothing from the ratio, and log p_T = -inf would still make its gradient NaN.
        ratio_N, clip = batch.column("teacher_logprobs").masked_fill(compared_N, 0.0), self.importance_clip
        behaviour_N = None if clip is None else batch.column("student_logprobs")
        lacking_NM = torch.zeros(len(ids_NK), self.k if self.sorted_weight else 0, dtype=torch.bool, device=ids_NK.device)

        def more(logprobs_RV: Tensor, rows: slice) -> Tensor:
            found = logprobs_RV.masked_fill(known_nV[number_N[rows]], -torch.inf).topk(self.k)
            lacking_NM[rows] = ~found.values.isneginf()
            return found.indices

        def per_token(logprobs: Tensor, rows: slice) -> Tensor:
            behaviour = None if behaviour_N is None else behaviour_N[rows]
            by_ratio = sampled_token_loss(logprobs[:, 0], ratio_N[rows], behaviour_logprobs=behaviour, importance_clip=clip)
            exact, apart = own_tokens_divergence(logprobs[:, 1:], lacking_NM[rows], teacher_NK[rows], shared_NK[rows])
            return torch.where(compared_N[rows], exact + self.sorted_weight * apart, by_ratio)

        def run(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
            found = token_loss(
                hidden,
                student,
                ids_NK,
                batch.coefficients,
                per_token,
                temperature=batch.temperature,
                vocab_size=batch.vocab_size,
                more=more if self.sorted_weight else None,
            )
            return found.loss, found.per_token, found.student_logprobs

        return run

    def working_bytes(self, vocab_size: int) -> float:
        # As in FewEntries, and the log-probabilities without the tokens that the teacher knows.
        return (4 * 4 + 4 * 2) * TOKEN_LOSS["cuda"]


def _laid(batch: MicroBatch) -> tuple[np.ndarray, ...]:
    """The payloads at the student's N tokens, from n teachers. What stands at tokens that are not compared counts nowhere.

    Returns:
        [N] bool, the tokens that are compared; [N, K] float32 log-probabilities of the teacher's likeliest tokens there, in
        nats; [N, K] int64 the student's tokens for them, NONE where it has none; [N] int64 which of the teachers; and [n, V]
        bool which of the student's tokens each of them has.
    """
    own = {name: np.where(ids < batch.vocab_size, ids, NONE).astype(np.int64) for name, ids in batch.shared_tokens.items()}
    known, parts = np.zeros((len(own), batch.vocab_size), bool), []
    for row, ids in zip(known, own.values(), strict=True):
        row[ids[ids >= 0]] = True
    for sample in batch.samples:
        found: Aligned = batch.payload[sample.sample_id]
        ids, logprobs = (_at(column, found.places)[:, 1:] for column in (found.part.token_ids, found.part.logprobs))
        number = np.full(len(found.places), list(own).index(found.teacher))
        parts.append((found.places >= 0, logprobs, own[found.teacher][ids], number))
    return (*(np.concatenate(column) for column in zip(*parts, strict=True)), known)


def _at(column: np.ndarray, places: np.ndarray) -> np.ndarray:
    """[T', K+1] -> [T, K+1]. A response may have no tokens to its teacher."""
    return column[places] if len(column) else np.zeros((len(places), column.shape[1]), column.dtype)
