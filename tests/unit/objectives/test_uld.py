"""The objective uld: against a plain oracle over dictionaries of texts, and against the objectives that it coincides with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renio_pipeline.divergence import own_tokens_divergence
from renio_pipeline.objectives.base import MicroBatch
from renio_pipeline.objectives.projection import Head
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.objectives.uld import Uld
from renio_pipeline.types import Aligned, TopK, TrainSample

OWN = ("a", "b", "c", "ab", "cd", "x", "yz")  # the student's vocabulary
OTHERS = {"maths": ("b", "bc", "a", "abc", "c", "q", "x", "yz", "zz"), "code": ("cd", "p", "pq", "a", "q", "r", "st", "u")}
V, T = len(OWN), 5


def shared(names: tuple[str, ...]) -> np.ndarray:
    return np.array([OWN.index(name) if name in OWN else -1 for name in names], np.int32)


class Given:
    """Two responses of T tokens, each with a teacher of its own, whose distributions are known at some places."""

    def __init__(self, seed: int, k: int, *, compared: float = 0.6) -> None:
        g = np.random.default_rng(seed)
        self.logits = torch.tensor(2 * g.standard_normal((2 * T, V)), requires_grad=True)
        self.targets, self.k = torch.tensor(g.integers(V, size=2 * T)), k
        self.ratio, self.behaviour = (np.log(g.uniform(0.01, 1, (2, T))).astype(np.float32) for _ in range(2))
        self.places, self.teachers, payload, samples = [], [], {}, []
        for i, (name, names) in enumerate(OTHERS.items()):
            count = T + i  # of the teacher's tokens
            logits = 2 * g.standard_normal((count, len(names)))
            teacher = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            top = np.argsort(-teacher, axis=1)[:, : min(k, len(names))]
            ids = np.concatenate([g.integers(len(names), size=(count, 1)), top], axis=1)
            chosen = np.sort(g.permutation(count)[:T]).astype(np.int32)
            places = np.where(g.random(T) < compared, chosen, -1).astype(np.int32)
            table = TopK(token_ids=ids.astype(np.int32), logprobs=np.take_along_axis(teacher, ids, 1))
            payload[i] = Aligned(part=table, places=places, teacher=name)
            samples.append(sample(i, self.targets[T * i : T * (i + 1)], self.ratio[i], self.behaviour[i]))
            self.places.append(places)
            self.teachers.append([dict(zip(names, row, strict=True)) for row in np.exp(teacher)])
        self.batch = MicroBatch(
            samples=samples, payload=payload, targets=self.targets, batch_size=2, temperature=1.0, vocab_size=V,
            teacher_head=None, shared_tokens={name: shared(names) for name, names in OTHERS.items()},
        )  # fmt: skip

    def head_fn(self, objective: Uld | Sampled) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = objective.head_fn(self.batch)(self.logits, Head(torch.eye(V).double()))
        return found

    def expected(self, sorted_weight: float) -> np.ndarray:
        """[2T], NaN where the loss is that of the span's ratio."""
        student, found = torch.softmax(self.logits, -1).detach().numpy(), np.full(2 * T, np.nan)
        for i, (places, teacher) in enumerate(zip(self.places, self.teachers, strict=True)):
            for t, place in enumerate(places):
                if place >= 0:
                    own = dict(zip(OWN, student[T * i + t], strict=True))
                    found[T * i + t] = oracle(own, teacher[place], list(OTHERS.values())[i], self.k, sorted_weight)
        return found


def sample(i: int, ids: Tensor, teacher: np.ndarray, behaviour: np.ndarray) -> TrainSample:
    return TrainSample(
        sample_id=i, prompt_ids=np.zeros(1, np.int32), response_ids=ids.int().numpy(), student_logprobs=behaviour,
        teacher_logprobs=teacher, weight=1.0 + i,
    )  # fmt: skip


def oracle(own: dict[str, float], teacher: dict[str, float], names: tuple[str, ...], k: int, weight: float) -> float:
    top = dict(sorted(teacher.items(), key=lambda pair: -pair[1])[:k])
    both = [text for text in top if text in own]
    exact = 0.0
    if both:
        theirs, ours = sum(top[text] for text in both), sum(own[text] for text in both)
        divergence = sum(top[x] / theirs * np.log(top[x] / theirs / (own[x] / ours)) for x in both)
        exact = theirs / sum(top.values()) * divergence
    left = sorted((p for text, p in top.items() if text not in own), reverse=True)
    mine = sorted((p for text, p in own.items() if text not in names), reverse=True)[:k]
    length = max(len(left), len(mine))
    padded = [np.pad(side, (0, length - len(side))) for side in (left, mine)]
    return float(exact + weight * np.abs(padded[0] - padded[1]).sum())


@given(st.integers(0, 2**20), st.integers(1, 5), st.sampled_from([0.0, 1.0, 0.3]))
@settings(max_examples=60, deadline=None)
def test_values_are_the_oracles_and_other_tokens_learn_by_their_ratio(seed: int, k: int, weight: float) -> None:
    problem = Given(seed, k)
    expected = problem.expected(weight)
    loss, per_token, logprobs = problem.head_fn(Uld(k=k, sorted_weight=weight, importance_clip=1.5))
    _, by_ratio, of_targets = problem.head_fn(Sampled(importance_clip=1.5))
    compared = ~np.isnan(expected)
    np.testing.assert_allclose(per_token[compared], expected[compared], rtol=1e-6, atol=1e-7)
    assert per_token[~compared].tolist() == by_ratio[~compared].tolist()
    torch.testing.assert_close(logprobs, of_targets)
    torch.testing.assert_close(loss.double(), (problem.batch.coefficients.double() * per_token).sum(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_gradient_is_that_of_the_value_where_distributions_are_compared(weight: float) -> None:
    """Central differences, because this loss allows one backward alone."""
    problem, objective, eps = Given(3, 4, compared=1.0), Uld(k=4, sorted_weight=weight), 1e-4
    (found,) = torch.autograd.grad(problem.head_fn(objective)[0], problem.logits)
    expected, logits = torch.zeros_like(found), problem.logits.detach()
    for n, v in np.ndindex(*logits.shape):
        sides = []
        for step in (eps, -eps):
            problem.logits = logits.clone()
            problem.logits[n, v] += step
            sides.append(problem.head_fn(objective)[1] @ problem.batch.coefficients.double())
        expected[n, v] = (sides[0] - sides[1]) / (2 * eps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_both_parts_pass_torchs_gradient_check(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    student = torch.log_softmax(torch.randn(4, 8, generator=g).double(), -1).requires_grad_()
    teacher = torch.log_softmax(torch.randn(4, 5, generator=g).double(), -1)
    masks = (torch.rand(4, 3, generator=g) < 0.6, teacher, torch.rand(4, 5, generator=g) < 0.6)
    assert torch.autograd.gradcheck(lambda logprobs: own_tokens_divergence(logprobs, *masks), (student,))


def test_without_a_place_to_compare_it_is_the_sampled_objective() -> None:
    problem = Given(5, 3, compared=0.0)
    found = []
    for objective in (Uld(k=3).on_policy(), Sampled().on_policy()):
        loss, per_token, _ = problem.head_fn(objective)
        found.append((loss, per_token, *torch.autograd.grad(loss, problem.logits)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@given(st.integers(0, 2**20), st.integers(1, V - 1))
@settings(max_examples=30, deadline=None)
def test_between_equal_vocabularies_it_is_the_forward_kl_of_the_top_k(seed: int, k: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(T, V, generator=g)).requires_grad_()
    teacher = torch.log_softmax(2 * torch.randn(T, V, generator=g), -1)
    targets = torch.randint(V, (T,), generator=g)
    ids = torch.cat([targets[:, None], teacher.topk(k).indices], 1)
    table = TopK(token_ids=ids.int().numpy(), logprobs=teacher.gather(1, ids).numpy())
    one = sample(0, targets, np.zeros(T, np.float32), np.zeros(T, np.float32))
    batch = MicroBatch(
        samples=[one], payload={0: table}, targets=targets, batch_size=1, temperature=1.0, vocab_size=V, teacher_head=None
    )
    aligned = Aligned(part=table, places=np.arange(T, dtype=np.int32))
    other = replace(batch, payload={0: aligned}, shared_tokens={"": np.arange(V, dtype=np.int32)})
    found = []
    for objective, own in ((TopKForwardKL(k=k, tail=False), batch), (Uld(k=k), other)):
        loss, per_token, _ = objective.head_fn(own)(logits, Head(torch.eye(V)))
        found.append((per_token, *torch.autograd.grad(loss, logits)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_teacher_that_shares_no_token_is_compared_by_sorted_probabilities_alone() -> None:
    """The whole distributions, as in the paper, where k is all of the smaller vocabulary."""
    problem = Given(8, V - 1, compared=1.0)
    nothing = {name: np.full(len(names), -1, np.int32) for name, names in OTHERS.items()}
    problem.batch = replace(problem.batch, shared_tokens=nothing)
    _, per_token, _ = problem.head_fn(Uld(k=V - 1))
    student = np.sort(torch.softmax(problem.logits, -1).detach().numpy())[:, ::-1][:, : V - 1]
    for t, place in enumerate(problem.places[0]):
        teacher = np.array(sorted(problem.teachers[0][place].values(), reverse=True)[: V - 1])
        assert float(per_token[t]) == pytest.approx(float(np.abs(student[t] - teacher).sum()), rel=1e-6)


@pytest.mark.parametrize("left", ["teacher", "everything"])
def test_a_response_that_is_empty_to_its_teacher_or_at_all_trains_nothing_wrong(left: str) -> None:
    problem = Given(2, 3)
    none: Any = TopK(token_ids=np.zeros((0, 4), np.int32), logprobs=np.zeros((0, 4), np.float32))
    length = T if left == "teacher" else 0
    empty = Aligned(part=none, places=np.full(length, -1, np.int32), teacher="code")
    samples = list(problem.batch.samples)
    samples[1] = sample(1, problem.targets[T : T + length], problem.ratio[1][:length], problem.behaviour[1][:length])
    payload = {**problem.batch.payload, 1: empty}
    whole = problem.head_fn(Uld(k=3))[1]
    problem.batch = replace(problem.batch, samples=samples, payload=payload, targets=problem.targets[: T + length])
    problem.logits = problem.logits.detach()[: T + length].requires_grad_()
    loss, per_token, _ = problem.head_fn(Uld(k=3))
    assert torch.isfinite(torch.autograd.grad(loss, problem.logits)[0]).all()
    torch.testing.assert_close(per_token[:T], whole[:T])


def test_a_token_that_the_teacher_excludes_harms_no_gradient_where_distributions_are_compared() -> None:
    problem = Given(4, 3, compared=1.0)
    _, expected, _ = problem.head_fn(Uld(k=3))
    samples = [replace(s, teacher_logprobs=np.full(T, -np.inf, np.float32)) for s in problem.batch.samples]
    problem.batch = replace(problem.batch, samples=samples)
    loss, per_token, _ = problem.head_fn(Uld(k=3))
    torch.testing.assert_close(per_token, expected)
    assert torch.isfinite(torch.autograd.grad(loss, problem.logits)[0]).all()
