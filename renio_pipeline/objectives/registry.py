"""What each objective makes of a micro-batch's hidden states, where the student's head is whole. Torch alone.

Shapes: N response tokens of the micro-batch, in the samples' order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renio_pipeline.config.schema import Jsd, Objective, Sampled, TopKForwardKL
from renio_pipeline.divergence import top_k_forward_kl, top_k_support
from renio_pipeline.loss import sampled_token_loss, token_shares
from renio_pipeline.models.teacher import from_numpy
from renio_pipeline.objectives.full_vocabulary import FullVocabulary, full_vocabulary_loss
from renio_pipeline.objectives.projection import Head
from renio_pipeline.objectives.token_loss import PerToken, token_loss
from renio_pipeline.types import Hidden, TrainSample, Version

TeacherHead = Callable[[str, Version], Head]
HeadJob = Callable[[Tensor, Head], Any]  # what to do with [N, H] hidden states and the student's head


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A micro-batch with response tokens."""

    samples: Sequence[TrainSample]
    payload: Mapping[int, Any]  # the teacher's top-k or hidden states, by sample id; unused by the sampled-token loss
    targets: Tensor  # [N] the response tokens, on the device of the model
    batch_size: int  # B of the whole step, over all ranks
    temperature: float
    vocab_size: int
    teacher_head: TeacherHead | None  # of a teacher and a version, for the exact divergence

    @property
    def lengths(self) -> Tensor:
        """[b] tokens of each response."""
        return torch.tensor([len(s.response_ids) for s in self.samples])

    @property
    def coefficients(self) -> Tensor:
        """[N] what each token's divergence counts in the step's loss."""
        return token_shares([s.weight for s in self.samples], self.lengths, self.batch_size).to(self.targets.device)


def job_of(objective: Objective, problem: Problem) -> HeadJob:
    """A function of hidden states [N, H] and the student's head: loss, divergences [N], log-probabilities of targets [N]."""
    return _exact(objective, problem) if isinstance(objective, Jsd) else _few_entries(objective, problem)


def _few_entries(objective: TopKForwardKL | Sampled, problem: Problem) -> HeadJob:
    ids, per_token = (_top_k if isinstance(objective, TopKForwardKL) else _sampled)(objective, problem)  # type: ignore[arg-type]

    def job(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
        found = token_loss(
            hidden,
            student,
            ids,
            problem.coefficients,
            per_token,
            temperature=problem.temperature,
            vocab_size=problem.vocab_size,
        )
        return found.loss, found.per_token, found.student_logprobs

    return job


def _top_k(objective: TopKForwardKL, problem: Problem) -> tuple[Tensor, PerToken]:
    tables, device = [problem.payload[s.sample_id] for s in problem.samples], problem.targets.device
    ids_NK = torch.cat([torch.tensor(t.token_ids) for t in tables]).long().to(device)
    teacher_NK = torch.cat([torch.tensor(t.logprobs) for t in tables]).to(device)
    support_NK = top_k_support(ids_NK, tail=objective.tail)

    def per_token(logprobs: Tensor, rows: slice) -> Tensor:
        return top_k_forward_kl(
            logprobs[:, 1:],
            teacher_NK[rows],
            support_NK[rows],
            tail=objective.tail,
            entry_clip=objective.entry_clip,
            token_clip=objective.token_clip,
        )

    return torch.cat([problem.targets[:, None], ids_NK], dim=1), per_token


def _sampled(objective: Sampled, problem: Problem) -> tuple[Tensor, PerToken]:
    def column(name: str) -> Tensor:
        return torch.cat([torch.as_tensor(getattr(s, name)) for s in problem.samples]).to(problem.targets.device)

    teacher_N, clip = column("teacher_logprobs"), objective.importance_clip
    behaviour_N = None if clip is None else column("student_logprobs")  # what the generator said of them

    def per_token(logprobs: Tensor, rows: slice) -> Tensor:
        behaviour = None if behaviour_N is None else behaviour_N[rows]
        return sampled_token_loss(logprobs[:, 0], teacher_N[rows], behaviour_logprobs=behaviour, importance_clip=clip)

    return problem.targets[:, None], per_token


def _exact(objective: Jsd, problem: Problem) -> HeadJob:
    """Teacher by teacher: several have a head each."""
    tables: list[Hidden] = [problem.payload[s.sample_id] for s in problem.samples]
    owners = [(t.teacher, t.version) for t in tables]
    targets, coefficients, lengths = problem.targets, problem.coefficients, problem.lengths
    teacher_head = problem.teacher_head
    assert teacher_head is not None

    def of_teacher(owner: tuple[str, Version], hidden: Tensor, student: Head) -> tuple[Tensor, FullVocabulary]:
        own = torch.repeat_interleave(torch.tensor([o == owner for o in owners]), lengths).nonzero()[:, 0].to(targets.device)
        states = torch.cat([from_numpy(t.values) for t, o in zip(tables, owners, strict=True) if o == owner]).to(targets.device)
        teacher = teacher_head(*owner)
        found = full_vocabulary_loss(
            hidden if len(own) == len(hidden) else hidden[own],
            student,
            states.to(teacher.weight.dtype),
            teacher,
            targets[own],
            coefficients[own],
            beta=objective.beta,
            temperature=problem.temperature,
            entry_clip=objective.entry_clip,
            token_clip=objective.token_clip,
            vocab_size=problem.vocab_size,
            chunk_tokens=objective.chunk_tokens,
        )
        return own, found

    def job(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
        parts = [of_teacher(owner, hidden, student) for owner in dict.fromkeys(owners)]
        order = torch.cat([own for own, _ in parts]).argsort()
        per_token = torch.cat([found.per_token for _, found in parts])[order]
        sampled = torch.cat([found.student_logprobs for _, found in parts])[order]
        return torch.stack([found.loss for _, found in parts]).sum(), per_token, sampled

    return job
