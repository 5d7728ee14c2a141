"""The exact divergence over the whole vocabulary (arXiv 2606.23104)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from renio_pipeline.config.sections import HIDDEN, TeacherPayload
from renio_pipeline.objectives.base import HeadFn, MicroBatch, Objective
from renio_pipeline.objectives.chunk_sizes import FULL_VOCABULARY
from renio_pipeline.objectives.fetched import as_mixture
from renio_pipeline.types import Mixture, Version

if TYPE_CHECKING:
    from torch import Tensor

    from renio_pipeline.objectives.full_vocabulary import FullVocabulary
    from renio_pipeline.objectives.projection import Head

Owner = tuple[tuple[float, str, Version], ...]  # of each teacher of a mixture: its weight, its name and its version


class Jsd(Objective):
    """The exact divergence over the whole vocabulary; the teacher sends hidden states and the trainer projects them."""

    mixes: ClassVar[bool] = True
    type: Literal["jsd"] = "jsd"
    beta: float = Field(
        0.0, ge=0, le=1, description="0: forward KL; 1: reverse KL; between: generalised Jensen-Shannon divergence."
    )
    entry_clip: PositiveFloat | None = Field(
        None, description="Clamp every vocabulary entry to [0, entry_clip] before the sum; null: no bound."
    )
    token_clip: PositiveFloat | None = Field(
        None, description="Upper bound on each token's divergence, after the sum; null: no bound."
    )
    chunk_tokens: PositiveInt | None = Field(
        None, description="Tokens whose logits are held at a time; null: chosen for the device."
    )

    @property
    def payload(self) -> TeacherPayload:
        return HIDDEN

    def working_bytes(self, vocab_size: int) -> float:
        chunk = self.chunk_tokens * vocab_size if self.chunk_tokens else FULL_VOCABULARY["cuda"]
        return 6 * 4 * chunk

    def head_fn(self, batch: MicroBatch) -> HeadFn:
        """Teacher by teacher, or mixture by mixture: several have a head each."""
        import torch

        from renio_pipeline.objectives.full_vocabulary import OneTeacher, full_vocabulary_loss
        from renio_pipeline.objectives.payload import from_numpy

        tables: list[Mixture] = [as_mixture(batch.payload[s.sample_id]) for s in batch.samples]
        owners = [tuple((w, p.teacher, p.version) for w, p in zip(t.weights, t.parts, strict=True)) for t in tables]
        targets, coefficients, lengths = batch.targets, batch.coefficients, batch.lengths
        teacher_head = batch.teacher_head
        assert teacher_head is not None

        def one(i: int, owner: Owner) -> OneTeacher:
            weight, name, version = owner[i]
            states = torch.cat([from_numpy(t.parts[i].values) for t, o in zip(tables, owners, strict=True) if o == owner])
            head = teacher_head(name, version)
            return OneTeacher(states.to(targets.device).to(head.weight.dtype), head, weight)

        def of_teacher(owner: Owner, hidden: Tensor, student: Head) -> tuple[Tensor, FullVocabulary]:
            mine = torch.repeat_interleave(torch.tensor([o == owner for o in owners]), lengths)
            own = mine.nonzero()[:, 0].to(targets.device)
            first, *others = (one(i, owner) for i in range(len(owner)))
            found = full_vocabulary_loss(
                hidden if len(own) == len(hidden) else hidden[own],
                student,
                first.hidden,
                first.head,
                targets[own],
                coefficients[own],
                beta=self.beta,
                temperature=batch.temperature,
                entry_clip=self.entry_clip,
                token_clip=self.token_clip,
                vocab_size=batch.vocab_size,
                chunk_tokens=self.chunk_tokens,
                weight=first.weight,
                others=others,
            )
            return own, found

        def run(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
            parts = [of_teacher(owner, hidden, student) for owner in dict.fromkeys(owners)]
            order = torch.cat([own for own, _ in parts]).argsort()
            per_token = torch.cat([found.per_token for _, found in parts])[order]
            sampled = torch.cat([found.student_logprobs for _, found in parts])[order]
            return torch.stack([found.loss for _, found in parts]).sum(), per_token, sampled

        return run
