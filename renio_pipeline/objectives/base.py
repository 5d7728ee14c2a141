"""What an objective is, and the micro-batch that it is given.

Shape legend: B samples of the step's global batch, b of the micro-batch, N response tokens of the micro-batch, sample after
sample, H hidden size, K tokens that an objective looks at.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from renio_pipeline.config.sections import ObjectiveSection, TeacherPayload
from renio_pipeline.objectives.chunk_sizes import TOKEN_LOSS
from renio_pipeline.types import TrainSample, Version

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from renio_pipeline.objectives.projection import Head
    from renio_pipeline.objectives.token_loss import PerToken

TeacherHead = Callable[[str, Version], "Head"]  # the output head of a teacher, by its name, at a version
HeadFn = Callable[["Tensor", "Head"], Any]  # a function of hidden states [N, H] and the student's output head


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Samples that are trained on in one forward and backward pass. Responses may be empty."""

    samples: Sequence[TrainSample]  # b
    payload: Mapping[
        int, Any
    ]  # by sample id, what the teacher sent: a TopK, a Hidden, a Mixture or an Aligned; empty for the payload `sampled`
    targets: Tensor  # [N] int64, the response tokens, on the model's device
    batch_size: int  # B, over all ranks
    batch_tokens: int | None = None  # response tokens of all B, where the loss is a mean over tokens; None: over samples
    temperature: float  # the distillation temperature, which divides the logits
    vocab_size: int  # V: log-probabilities are over the first V entries
    teacher_head: TeacherHead | None  # for the payload `hidden`
    shared_tokens: Mapping[str, np.ndarray] = field(default_factory=dict)  # by teacher with another tokenizer

    @property
    def lengths(self) -> Tensor:
        """[b] int64, response tokens of each sample."""
        import torch

        return torch.tensor([len(s.response_ids) for s in self.samples])

    @property
    def coefficients(self) -> Tensor:
        """[N] float32, what each token's divergence counts in the step's loss: w_b · f_bt / (B · T_b).

        w_b is the sample's weight, f_bt its token factor. The loss is the sum of coefficients · divergences. In a mean over
        tokens the denominator is that of the whole batch, Σ_b T_b.
        """
        import torch

        from renio_pipeline.loss import token_shares

        factors_N = None
        if any(s.token_factors is not None for s in self.samples):
            ones = (np.ones(len(s.response_ids), np.float32) for s in self.samples)
            given = (o if s.token_factors is None else s.token_factors for s, o in zip(self.samples, ones, strict=True))
            factors_N = torch.from_numpy(np.concatenate(list(given)))
        weights = [s.weight for s in self.samples]
        shares = token_shares(weights, self.lengths, self.batch_size, factors_N, batch_tokens=self.batch_tokens)
        return shares.to(self.targets.device)

    def column(self, name: str) -> Tensor:
        """[N], a field of the samples that has a value a token, such as ``teacher_logprobs``, on the model's device."""
        return column_of(self.samples, name, self.targets.device)

    @property
    def advantages(self) -> Tensor:
        """[N] float32, of each token's sample: what the verifier's rewards say of it."""
        return advantages_of(self.samples, self.targets.device)


def column_of(samples: Sequence[TrainSample], name: str, device: Any) -> Tensor:
    """[N], a field of samples that has a value a token."""
    import torch

    return torch.cat([torch.as_tensor(getattr(s, name)) for s in samples]).to(device)


def advantages_of(samples: Sequence[TrainSample], device: Any) -> Tensor:
    """[N] float32, each token's the advantage of its sample."""
    import torch

    lengths = torch.tensor([len(s.response_ids) for s in samples])
    return torch.repeat_interleave(torch.tensor([s.advantage for s in samples]), lengths).to(device)


class Objective(ObjectiveSection):
    """Base of all objectives. Fields of a subclass are keys of the configuration's ``objective`` section.

    An instance is immutable, is pickled to the trainer ranks, and must not import torch outside of ``head_fn``.
    """

    normalization: Literal["sample", "token"] = Field(
        "sample",
        description="sample: the loss is the mean over samples of each one's mean over its tokens; token: the mean over all "
        "response tokens of the batch, so that a sample counts by its length.",
    )

    @property
    @abstractmethod
    def payload(self) -> TeacherPayload:
        """What the teachers send of each response token."""

    @abstractmethod
    def head_fn(self, batch: MicroBatch) -> HeadFn:
        """The function that the trainer runs where the student's head is whole (ZeRO 3 gathers it there).

        It takes hidden states [N, H] after the final norm, with gradient, and the head, and returns

        - the micro-batch's part of the step's loss, a scalar with gradient: Σ_n coefficients_n · d_n,
        - the divergences d [N] in nats, without gradient,
        - the student's log-probabilities [N] of the targets in nats, without gradient.
        """

    @abstractmethod
    def working_bytes(self, vocab_size: int) -> float:
        """GPU memory in bytes that the loss takes at its peak, for ``renio plan``.

        Without the gradients of the head and of the hidden states, which every objective has, and without the teachers'
        heads, which the payload ``hidden`` implies.
        """

    def measured(self, samples: Sequence[TrainSample], student_logprobs: Tensor) -> dict[str, float]:
        """What metrics show besides the divergence: by a metric's name, its sum over the response tokens of ``samples``.

        Args:
            student_logprobs: [N] log p_S of the response tokens under the weights that are trained, in nats, without gradient.
        """
        return {}

    def on_policy(self) -> Self:
        """The same objective where every sample is by the weights that are trained (``max_staleness`` 0)."""
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__abstractmethods__ == {"payload"}:
            raise TypeError(
                f"objective {cls.__name__} does not say what the teachers send: define the property payload, which returns "
                "SAMPLED, top_k(k) or HIDDEN of renio_pipeline.objectives"
            )


class FewEntries(Objective):
    """Base of objectives that look at the student's log-probabilities of few tokens at each position."""

    @abstractmethod
    def entries(self, batch: MicroBatch) -> tuple[Tensor, PerToken]:
        """Which tokens the objective looks at, and what it makes of them.

        Returns:
            Ids [N, K] int64, of which the first column is ``batch.targets``; one token may stand there twice. And a
            differentiable function of the student's log-probabilities [R, K] of rows ``slice`` of N, in nats, to the
            divergences [R] of these rows.
        """

    def head_fn(self, batch: MicroBatch) -> HeadFn:
        from renio_pipeline.objectives.token_loss import token_loss

        ids, per_token = self.entries(batch)

        def run(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
            found = token_loss(
                hidden,
                student,
                ids,
                batch.coefficients,
                per_token,
                temperature=batch.temperature,
                vocab_size=batch.vocab_size,
            )
            return found.loss, found.per_token, found.student_logprobs

        return run

    def working_bytes(self, vocab_size: int) -> float:
        # Fp32 logits, the same by the temperature, their log-softmax; the gradients of four chunks in the model's precision.
        return (3 * 4 + 4 * 2) * TOKEN_LOSS["cuda"]
