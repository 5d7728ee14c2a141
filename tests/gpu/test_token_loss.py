"""Losses of few log-probabilities on a GPU: exactness and memory against whole logits. Run it by name; torch alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from renio_pipeline.divergence import top_k_forward_kl, top_k_support
from renio_pipeline.objectives.projection import Head
from renio_pipeline.objectives.token_loss import token_loss

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True, scope="module")
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("tests/gpu needs a CUDA device, and torch sees none; everywhere else run tests/unit and tests/ray")


class Problem:
    def __init__(self, *, tokens: int, vocabulary: int, width: int, dtype: torch.dtype) -> None:
        generator = torch.Generator("cuda").manual_seed(0)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=generator, device="cuda") * scale).to(dtype)

        self.vocabulary = vocabulary
        self.hidden = draw(tokens, width).requires_grad_()
        self.weight = draw(vocabulary, width, scale=2 * width**-0.5).requires_grad_()
        self.ids = torch.randint(vocabulary, (tokens, 65), generator=generator, device="cuda")
        self.teacher = torch.log_softmax(draw(tokens, 66).float(), -1)[:, 1:]
        self.coefficients = torch.rand(tokens, generator=generator, device="cuda") / tokens

    def per_token(self, logprobs: Tensor, rows: slice) -> Tensor:
        return top_k_forward_kl(logprobs, self.teacher[rows], top_k_support(self.ids[rows]))

    def chunked(self, chunk_tokens: int | None = None) -> Tensor:
        return token_loss(
            self.hidden,
            Head(self.weight),
            self.ids,
            self.coefficients,
            self.per_token,
            temperature=1.1,
            vocab_size=self.vocabulary,
            chunk_tokens=chunk_tokens,
        ).loss

    def naive(self, dtype: torch.dtype) -> Tensor:
        logits = (self.hidden.to(dtype) @ self.weight.to(dtype).T).to(torch.promote_types(dtype, torch.float32))
        logprobs = torch.log_softmax(logits / 1.1, -1).gather(1, self.ids)
        return (self.coefficients * self.per_token(logprobs, slice(None))).sum()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_value_and_gradients_are_those_of_float64(dtype: torch.dtype, tolerance: float) -> None:
    """Relative to each gradient's norm. bfloat16 inputs are taken as they are: their logits lose nothing more."""
    problem = Problem(tokens=300, vocabulary=5003, width=64, dtype=dtype)
    leaves = (problem.hidden, problem.weight)
    found, expected = problem.chunked(32), problem.naive(torch.float64)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    for gradient, wanted in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert gradient.dtype == dtype
        error = (gradient.double() - wanted.double()).norm() / wanted.double().norm()
        assert error < tolerance


def test_its_memory_is_a_small_part_of_whole_logits() -> None:
    problem = Problem(tokens=4096, vocabulary=151936, width=1024, dtype=torch.bfloat16)

    def extra(loss: Tensor) -> int:
        """Bytes at the peak, gradients apart."""
        loss.backward()
        left = sum(x.numel() * x.element_size() for x in (problem.hidden, problem.weight))
        problem.hidden.grad = problem.weight.grad = None
        return torch.cuda.max_memory_allocated() - before - left

    found = []
    for make in (problem.chunked, lambda: problem.naive(torch.bfloat16)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found.append(extra(make()))
    assert found[0] < 0.3 * found[1]
