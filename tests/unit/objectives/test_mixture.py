"""The divergences from a mixture of teachers, against plain torch on whole distributions and against each teacher's alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renio_pipeline.divergence import generalized_jsd, top_k_forward_kl, top_k_support
from renio_pipeline.objectives.base import MicroBatch, Objective
from renio_pipeline.objectives.full_vocabulary import FullVocabulary, OneTeacher, full_vocabulary_loss
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.objectives.mixture import mixed_top_k
from renio_pipeline.objectives.payload import to_numpy
from renio_pipeline.objectives.projection import Head, token_logprobs
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.types import FIRST_VERSION, Hidden, Mixture, TopK, TrainSample, Version

V, N, H = 9, 6, 4
WEIGHTS = (0.7, 0.3)


class Problem:
    """The student's logits, the teachers' distributions, and what each sends of its k likeliest tokens."""

    def __init__(self, seed: int, k: int, teachers: int = 2) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = (2 * torch.randn(N, V, generator=generator, dtype=torch.float64)).requires_grad_()
        self.teachers = [
            torch.log_softmax(2 * torch.randn(N, V, generator=generator, dtype=torch.float64), -1) for _ in range(teachers)
        ]
        self.sampled = torch.randint(V, (N, 1), generator=generator)
        self.ids = [torch.cat([self.sampled, t.topk(k).indices], 1) for t in self.teachers]
        self.values = [t.gather(1, ids) for t, ids in zip(self.teachers, self.ids, strict=True)]

    def student(self, ids: Tensor) -> Tensor:
        return torch.log_softmax(self.logits, -1).gather(1, ids)

    def alone(self, i: int, *, tail: bool) -> Tensor:
        support = top_k_support(self.ids[i], tail=tail)
        return top_k_forward_kl(self.student(self.ids[i]), self.values[i], support, tail=tail)

    def mixed(self, weights: tuple[float, ...], *, tail: bool) -> Tensor:
        student = self.student(torch.cat(self.ids, 1))
        teacher, support = mixed_top_k(self.ids, self.values, weights, student, tail=tail)
        return top_k_forward_kl(student, teacher, support, tail=tail)

    def gradient(self, loss: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(loss.sum(), self.logits)
        return found


@given(st.integers(0, 2**20), st.integers(1, V - 1), st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_the_gradient_of_a_mixtures_top_k_is_the_weighted_mean_of_each_teachers(seed: int, k: int, weight: float) -> None:
    problem, weights = Problem(seed, k), (weight, 1 - weight)
    found = problem.gradient(problem.mixed(weights, tail=True))
    expected = sum(w * problem.gradient(problem.alone(i, tail=True)) for i, w in enumerate(weights))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@given(st.integers(0, 2**20), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_where_the_payloads_name_every_token_it_is_the_exact_divergence_from_the_mixture(seed: int, weight: float) -> None:
    problem = Problem(seed, V - 1)
    mixture = torch.stack([t.exp() * w for t, w in zip(problem.teachers, (weight, 1 - weight), strict=True)]).sum(0).log()
    expected = generalized_jsd(problem.logits, mixture, beta=0.0)
    found = problem.mixed((weight, 1 - weight), tail=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(problem.gradient(found), problem.gradient(expected), rtol=1e-6, atol=1e-8)


@given(st.integers(0, 2**20), st.integers(1, V - 1), st.integers(1, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_without_a_tail_it_is_the_mixture_of_the_renormalised_top_k(seed: int, k: int, teachers: int, equal: bool) -> None:
    problem = Problem(seed, k, teachers)
    weights = tuple(np.full(teachers, 1 / teachers) if equal else np.arange(1, teachers + 1) / sum(range(1, teachers + 1)))
    mixture = np.zeros((N, V))
    for ids, weight, teacher in zip(problem.ids, weights, problem.teachers, strict=True):
        for row in range(N):
            own = ids[row, 1:].tolist()
            mixture[row, own] += weight * (teacher[row, own].exp() / teacher[row, own].exp().sum()).numpy()
    student = torch.softmax(problem.logits, -1).detach().numpy()
    inside = mixture > 0
    student = np.where(inside, student, 0)
    student /= student.sum(1, keepdims=True)
    terms = np.where(inside, mixture * (np.log(np.where(inside, mixture, 1)) - np.log(np.where(inside, student, 1))), 0)
    np.testing.assert_allclose(problem.mixed(weights, tail=False).detach(), terms.sum(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("tail", [True, False])
def test_one_teacher_or_the_same_teacher_twice_is_that_teacher(tail: bool) -> None:
    problem = Problem(3, 4)
    problem.ids, problem.values = [problem.ids[0]] * 2, [problem.values[0]] * 2
    twice, alone = problem.mixed(WEIGHTS, tail=tail), problem.alone(0, tail=tail)
    torch.testing.assert_close(twice, alone, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(problem.gradient(twice), problem.gradient(alone), rtol=1e-9, atol=1e-12)


@given(st.integers(0, 2**20), st.integers(1, V - 1))
@settings(max_examples=30, deadline=None)
def test_the_mixtures_probabilities_and_its_tail_sum_to_one_over_each_token_once(seed: int, k: int) -> None:
    problem = Problem(seed, k)
    ids = torch.cat(problem.ids, 1)
    teacher, support = mixed_top_k(problem.ids, problem.values, WEIGHTS, problem.student(ids), tail=True)
    for row in range(N):
        counted = ids[row][support[row]].tolist()
        assert len(counted) == len(set(counted)) == len(set(ids[row].tolist()))
        assert float(teacher[row].exp().sum()) <= 1 + 1e-9
    assert bool((teacher.exp() > 0)[support].all())


def whole_logits(hidden: Tensor, head: Head) -> Tensor:
    return (hidden.double() @ head.weight.double().T)[:, :V]


def drawn(seed: int) -> tuple[Tensor, Head, list[OneTeacher], Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_() for shape in ((N, H), (V, H)))
    teachers = [
        OneTeacher(
            torch.randn(N, H + i, generator=g, dtype=torch.float64),
            Head(torch.randn(V + i, H + i, generator=g, dtype=torch.float64)),
            w,
        )
        for i, w in enumerate(WEIGHTS)
    ]
    return hidden, Head(weight), teachers, torch.randint(V, (N,), generator=g), torch.rand(N, generator=g)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("clips", [{}, {"entry_clip": 0.05}, {"token_clip": 0.5}])
def test_the_exact_divergence_from_a_mixture_is_that_of_autograd(beta: float, clips: dict[str, float]) -> None:
    hidden, student, (first, *others), targets, coefficients = drawn(int(10 * beta))
    found: FullVocabulary = full_vocabulary_loss(
        hidden, student, first.hidden, first.head, targets, coefficients,
        beta=beta, vocab_size=V, temperature=1.3, chunk_tokens=4, weight=first.weight, others=others, **clips,
    )  # fmt: skip
    logits = [whole_logits(t.hidden, t.head) / 1.3 for t in (first, *others)]
    mixture = sum(w * torch.softmax(x, -1) for w, x in zip(WEIGHTS, logits, strict=True)).log() * 1.3
    per_token = generalized_jsd(whole_logits(hidden, student), mixture, beta=beta, temperature=1.3, **clips)
    torch.testing.assert_close(found.per_token, per_token.detach())
    torch.testing.assert_close(found.teacher_logprobs, (mixture / 1.3).gather(1, targets[:, None])[:, 0])
    for ours, wanted in zip(
        torch.autograd.grad(found.loss, (hidden, student.weight)),
        torch.autograd.grad((coefficients * per_token).sum(), (hidden, student.weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted)


def batch_of(payload: dict[int, Any], heads: dict[str, Head], targets: Tensor, teacher: np.ndarray) -> MicroBatch:
    samples = [
        TrainSample(
            sample_id=i,
            prompt_ids=np.zeros(1, np.int32),
            response_ids=ids.int().numpy(),
            student_logprobs=np.zeros(len(ids), np.float32),
            teacher_logprobs=own,
            weight=1.0 + i,
        )
        for i, (ids, own) in enumerate(zip(targets.split(N // 2), np.split(teacher, 2), strict=True))
    ]

    def head(name: str, version: Version) -> Head:
        return heads[name]

    return MicroBatch(
        samples=samples, payload=payload, targets=targets, batch_size=2, temperature=1.0, vocab_size=V, teacher_head=head
    )


@pytest.mark.parametrize("objective", [Jsd(), Jsd(beta=0.5), TopKForwardKL(k=V - 1), Sampled(importance_clip=None)])
def test_objectives_take_a_mixture_as_they_take_the_one_teacher_that_it_equals(objective: Objective) -> None:
    """A mixture of one model with itself is that model, for each objective from its own payload."""
    hidden, student, (teacher, _), targets, _ = drawn(7)
    ids, values = token_logprobs(teacher.hidden, targets, teacher.head, temperature=1.0, vocab_size=V, top_k=V - 1)

    def payload(name: str) -> dict[int, Any]:
        if objective.payload.kind == "hidden":
            halves = teacher.hidden.split(N // 2)
            return {i: Hidden(values=to_numpy(h), version=FIRST_VERSION, teacher=name) for i, h in enumerate(halves)}
        tables = zip(ids.split(N // 2), values.split(N // 2), strict=True)
        return {i: TopK(token_ids=t.int().numpy(), logprobs=v.float().numpy()) for i, (t, v) in enumerate(tables)}

    heads = {"": teacher.head, "other": replace(teacher.head)}
    one, other = payload(""), payload("other")
    both = {i: Mixture(parts=(one[i], other[i]), weights=WEIGHTS) for i in one}
    found = []
    for tables in (one, both):
        batch = batch_of(tables if objective.payload.kind != "sampled" else {}, heads, targets, values[:, 0].float().numpy())
        loss, per_token, _ = objective.head_fn(batch)(hidden, student)
        found.append((per_token, *torch.autograd.grad(loss, (hidden, student.weight))))
    for alone, mixed in zip(*found, strict=True):
        torch.testing.assert_close(mixed, alone, rtol=1e-5, atol=1e-6)
