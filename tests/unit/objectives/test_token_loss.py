"""Losses of few log-probabilities, from hidden states, against autograd on whole logits; what they make and hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renio_pipeline.divergence import top_k_forward_kl, top_k_support
from renio_pipeline.loss import sampled_token_loss, token_shares, weighted_loss
from renio_pipeline.objectives import chunked
from renio_pipeline.objectives.projection import Head, token_logprobs
from renio_pipeline.objectives.token_loss import TokenLoss, token_loss
from tests.unit.objectives.test_full_vocabulary import Recorder, whole_logits

N, V, H, K = 7, 13, 5, 4
HEADS: list[dict[str, Any]] = [{}, {"scale": 0.3}, {"soft_cap": 2.0}, {"scale": 1.7, "soft_cap": 1.5}, {"bias": None}]
KINDS = ("top k", "no tail", "sampled", "ratio")


class Problem:
    """Drawn at random. ids: the sampled token first, which may be one of the teacher's K after it."""

    def __init__(self, seed: int = 0, *, dtype: torch.dtype = torch.float64, tokens: int = N, bias: bool = True) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.hidden, self.weight = draw(tokens, H).requires_grad_(), draw(V + 2, H).requires_grad_()
        self.bias = draw(V + 2).requires_grad_() if bias else None
        self.head = Head(self.weight, self.bias)
        self.teacher = torch.log_softmax(2 * draw(tokens, V).double(), -1)
        top = self.teacher.topk(K).indices
        drawn = torch.randint(V, (tokens, 1), generator=generator)
        self.ids = torch.cat([torch.where(torch.arange(tokens)[:, None] % 2 == 0, top[:, 2:3], drawn), top], 1)
        self.behaviour = -3 * draw(tokens).double().abs()
        self.coefficients = draw(tokens).abs().double()

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in (self.hidden, self.weight, self.bias) if x is not None]

    def per_token(self, kind: str, **clips: Any) -> Any:
        teacher, support = self.teacher.gather(1, self.ids), top_k_support(self.ids, tail=kind == "top k")
        if kind in ("top k", "no tail"):
            return lambda logprobs, rows: top_k_forward_kl(
                logprobs, teacher[rows], support[rows], tail=kind == "top k", **clips
            )
        ratio = (lambda rows: {}) if kind == "sampled" else self._ratio
        return lambda logprobs, rows: sampled_token_loss(logprobs[:, 0], teacher[rows, 0], **ratio(rows))

    def _ratio(self, rows: slice) -> dict[str, Any]:
        return {"behaviour_logprobs": self.behaviour[rows], "importance_clip": 1.5}

    def found(self, kind: str, *, temperature: float = 1.0, chunk_tokens: int | None = 3, **clips: Any) -> TokenLoss:
        return token_loss(
            self.hidden,
            self.head,
            self.ids,
            self.coefficients,
            self.per_token(kind, **clips),
            temperature=temperature,
            vocab_size=V,
            chunk_tokens=chunk_tokens,
        )

    def naive(self, kind: str, *, temperature: float = 1.0, **clips: Any) -> tuple[Tensor, Tensor, Tensor]:
        logprobs = torch.log_softmax(whole_logits(self.hidden, self.head, V) / temperature, -1).gather(1, self.ids)
        per_token = self.per_token(kind, **clips)(logprobs, slice(None))
        return (self.coefficients * per_token).sum(), per_token.detach(), logprobs[:, 0].detach()

    def check(
        self, kind: str, *, tolerance: float = 1e-10, chunk_tokens: int | None = 3, incoming: float = 1.0, **how: Any
    ) -> None:
        found, expected = self.found(kind, chunk_tokens=chunk_tokens, **how), self.naive(kind, **how)
        for value, wanted in zip((found.loss, found.per_token, found.student_logprobs), expected, strict=True):
            torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)
        for gradient, wanted in zip(
            torch.autograd.grad(found.loss, self.leaves, torch.full_like(found.loss, incoming)),
            torch.autograd.grad(expected[0], self.leaves, torch.full_like(expected[0], incoming)),
            strict=True,
        ):
            assert gradient.dtype == wanted.dtype
            torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance)


@contextmanager
def blocks_of(rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "BLOCK_ELEMENTS", rows * V)
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "head", [{}, {"scale": 0.3}, {"soft_cap": 2.0}, {"scale": 1.7, "soft_cap": 1.5}, {"bias": None}], ids=str
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_value_and_gradients_are_those_of_autograd_on_whole_logits(
    dtype: torch.dtype, tolerance: float, head: dict[str, Any], kind: str
) -> None:
    problem = Problem(dtype=dtype, bias=head != {"bias": None})
    problem.head = replace(problem.head, **head)
    problem.check(kind, tolerance=tolerance, temperature=1.3)


@pytest.mark.parametrize("clips", [{"entry_clip": 0.05}, {"token_clip": 0.5}], ids=str)
def test_clips_of_entries_and_tokens(clips: dict[str, float]) -> None:
    bound = next(iter(clips.values()))
    problem = Problem()
    free = problem.naive("top k")[1]
    assert problem.naive("top k", **clips)[1].sum() < free.sum() - bound / 2
    problem.check("top k", **clips)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, N])
@pytest.mark.parametrize("chunk_tokens", [1, 3, N, N + 5, None])
def test_no_chunk_or_block_size_changes_anything(chunk_tokens: int | None, rows: int, kind: str) -> None:
    with blocks_of(rows):
        Problem().check(kind, chunk_tokens=chunk_tokens)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    temperature=st.floats(0.5, 2.0),
    chunk_tokens=st.integers(1, N + 1),
    soft_cap=st.none() | st.floats(0.5, 30.0),
    scale=st.floats(0.1, 3.0),
    incoming=st.sampled_from([1.0, -2.5, 1e-3]),
)
def test_any_options(seed: int, kind: str, soft_cap: float | None, scale: float, **options: Any) -> None:
    problem = Problem(seed)
    problem.head = replace(problem.head, soft_cap=soft_cap, scale=scale)
    problem.check(kind, tolerance=1e-9, **options)


def test_rows_that_the_teacher_has_not_neither_count_nor_learn() -> None:
    problem = Problem()
    with torch.no_grad():
        problem.weight[V:] = 1e3
    problem.check("top k")
    problem.found("top k").loss.backward()
    assert problem.weight.grad is not None
    assert problem.weight.grad[:V].abs().min() > 0
    assert not problem.weight.grad[V:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_ruled_out_by_an_infinite_bias_has_its_limit(kind: str) -> None:
    problem = Problem(tokens=2)
    ruled_out = next(i for i in range(V) if i not in problem.ids)
    with torch.no_grad():
        problem.bias[ruled_out] = -math.inf  # type: ignore[index]
    problem.check(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_as_large_as_all_logits_is_made(kind: str) -> None:
    problem = Problem(tokens=50)
    with Recorder() as seen, blocks_of(2):
        problem.found(kind, chunk_tokens=10).loss.backward()
    assert seen.largest == max(50 * H, 10 * V)
    with Recorder() as seen:
        problem.naive(kind)[0].backward()
    assert seen.largest >= 50 * V


def test_nothing_is_projected_twice_and_frozen_inputs_cost_no_products() -> None:
    def products(problem: Problem) -> int:
        with Recorder() as seen:
            problem.found("top k", chunk_tokens=N)
        return seen.operators.count("mm") + seen.operators.count("addmm_")

    problem = Problem()
    assert products(problem) == 3
    problem.weight.requires_grad_(False)
    assert products(problem) == 2
    with torch.no_grad():
        assert products(Problem()) == 1
        assert not Problem().found("top k").loss.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_heads_are_multiplied_and_summed_in_float32(dtype: torch.dtype) -> None:
    problem = Problem(dtype=dtype, tokens=64)
    found, expected = problem.found("top k", chunk_tokens=1), problem.naive("top k")
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.per_token.double(), expected[1], rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(found.loss, problem.leaves)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected[0], problem.leaves), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("top_k", [0, 3])
@pytest.mark.parametrize("head", [{}, {"scale": 1.7, "soft_cap": 1.5}, {"bias": None}], ids=str)
def test_log_probabilities_are_those_of_whole_logits(head: dict[str, Any], top_k: int) -> None:
    problem = Problem()
    problem.head = replace(problem.head, **head)
    targets = problem.ids[:, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("renio_pipeline.objectives.projection.LOGIT_ELEMENTS", 3 * V)  # three tokens a chunk
        ids, values = token_logprobs(problem.hidden, targets, problem.head, temperature=1.3, vocab_size=V, top_k=top_k)
    whole = torch.log_softmax(whole_logits(problem.hidden, problem.head, V).detach() / 1.3, -1)
    assert not values.requires_grad
    torch.testing.assert_close(values, whole.gather(1, ids))
    assert ids.tolist() == torch.cat([targets[:, None], whole.topk(top_k).indices], 1).tolist()


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 4)), min_size=1, max_size=6), st.integers(0, 3))
def test_a_tokens_share_is_its_slope_in_the_weighted_loss(samples: list[tuple[int, float]], others: int) -> None:
    lengths, weights = [n for n, _ in samples], [w for _, w in samples]
    per_token = torch.zeros(len(samples), 5, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    weighted_loss(per_token, mask, torch.tensor(weights), batch_size=len(samples) + others).backward()
    found = token_shares(weights, torch.tensor(lengths), len(samples) + others)
    assert per_token.grad is not None
    torch.testing.assert_close(found.double(), per_token.grad[mask], rtol=1e-6, atol=1e-9)
    ones = torch.ones(int(mask.sum()))
    assert token_shares(weights, torch.tensor(lengths), len(samples) + others, ones).tolist() == found.tolist()
    factors, per_token.grad = torch.rand(len(samples), 5, dtype=torch.float64), None
    loss = weighted_loss(per_token, mask, torch.tensor(weights), batch_size=len(samples) + others, factors=factors)
    loss.backward()
    found = token_shares(weights, torch.tensor(lengths), len(samples) + others, factors[mask])
    torch.testing.assert_close(found.double(), per_token.grad[mask], rtol=1e-6, atol=1e-9)
    tokens, per_token.grad = sum(lengths) + others, None
    weighted_loss(per_token, mask, torch.tensor(weights), batch_tokens=tokens, factors=factors).backward()
    found = token_shares(weights, torch.tensor(lengths), len(samples), factors[mask], batch_tokens=tokens)
    torch.testing.assert_close(found.double(), per_token.grad[mask], rtol=1e-6, atol=1e-9)


def test_factors_that_are_not_one_a_token_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one a response token, \(3,\), got \(2,\)"):
        token_shares([1.0, 1.0], torch.tensor([1, 2]), 2, torch.ones(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(N, H + 1)}, "hidden states must be"),
        ({"ids": torch.zeros(N + 1, K).long()}, r"ids must be \[7, K\]"),
        ({"ids": torch.zeros(N).long()}, r"ids must be \[7, K\]"),
        ({"coefficients": torch.zeros(N + 1)}, r"coefficients \[7\]"),
        ({"head": Head(torch.zeros(V - 1, H))}, "at least vocab_size"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    problem = Problem()
    for name, value in change.items():
        setattr(problem, name, value)
    with pytest.raises(ValueError, match=message):
        token_loss(problem.hidden, problem.head, problem.ids, problem.coefficients, lambda x, rows: x.sum(1), vocab_size=V)
