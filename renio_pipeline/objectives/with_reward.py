"""A distillation and the verifier's rewards in one loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveFloat, SerializeAsAny

from renio_pipeline.config.sections import TeacherPayload
from renio_pipeline.objectives.base import FewEntries, HeadFn, MicroBatch, Objective
from renio_pipeline.objectives.without_teacher.clipped import Clipped
from renio_pipeline.types import TrainSample

if TYPE_CHECKING:
    from torch import Tensor

    from renio_pipeline.objectives.projection import Head


class WithReward(Objective):
    """Loss = distillation + coefficient · policy gradient, each normalised as the distillation's objective says.

    Sample weights and token factors are the distillation's alone. It is made by ``trained_objective``, and is no choice of
    ``objective.type``.
    """

    type: Literal["with_reward"] = "with_reward"
    inner: SerializeAsAny[Objective]
    coefficient: PositiveFloat
    policy: Clipped = Clipped()

    @property
    def payload(self) -> TeacherPayload:
        return self.inner.payload

    def guarded(self, method: str, *, refuses: bool = False) -> Any:
        return self.inner.guarded(method, refuses=refuses)

    def working_bytes(self, vocab_size: int) -> float:
        return max(self.inner.working_bytes(vocab_size), self.policy.working_bytes(vocab_size))

    def measured(self, samples: Sequence[TrainSample], student_logprobs: Tensor) -> dict[str, float]:
        return self.inner.measured(samples, student_logprobs) | self.policy.measured(samples, student_logprobs)

    def head_fn(self, batch: MicroBatch) -> HeadFn:
        taught = replace(batch, samples=[s if s.taught else replace(s, weight=0.0) for s in batch.samples])
        rewarded = replace(batch, samples=[replace(s, weight=self.coefficient, token_factors=None) for s in batch.samples])
        if isinstance(self.inner, FewEntries) and type(self.inner).head_fn is FewEntries.head_fn:
            return self._in_one_pass(self.inner, taught, rewarded)
        distils, learns = self.inner.head_fn(taught), self.policy.head_fn(rewarded)

        def run(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
            distilled, per_token, logprobs = distils(hidden, student)
            return distilled + learns(hidden, student)[0], per_token, logprobs

        return run

    def _in_one_pass(self, inner: FewEntries, taught: MicroBatch, rewarded: MicroBatch) -> HeadFn:
        """Both from the same log-probabilities: the student's head is multiplied once."""
        import torch

        from renio_pipeline.objectives.token_loss import token_loss

        ids, divergence = inner.entries(taught)
        _, gain = self.policy.entries(rewarded)
        of_teacher, of_reward = taught.coefficients, rewarded.coefficients
        divergences = torch.zeros_like(of_teacher)

        def per_token(logprobs_RK: Tensor, rows: slice) -> Tensor:
            found = divergence(logprobs_RK, rows)
            divergences[rows] = found.detach().to(divergences.dtype)
            return of_teacher[rows] * found + of_reward[rows] * gain(logprobs_RK[:, :1], rows)

        def run(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
            ones = torch.ones_like(of_teacher)
            found = token_loss(
                hidden, student, ids, ones, per_token, temperature=taught.temperature, vocab_size=taught.vocab_size
            )
            return found.loss, divergences, found.student_logprobs

        return run
