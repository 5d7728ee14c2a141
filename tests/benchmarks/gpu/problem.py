"""Hidden states, heads, and each way of taking the exact loss of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.objectives import full_vocabulary
from renio_pipeline.objectives.full_vocabulary import full_vocabulary_loss
from renio_pipeline.objectives.projection import Head
from tests.benchmarks.gpu.bench import Bench, Work


class Problem:
    """Random hidden states and heads; the student's require gradients."""

    def __init__(self, bench: Bench, tokens: int) -> None:
        s = bench.sizes
        torch.manual_seed(0)
        self.bench, self.tokens, self.vocabulary = bench, tokens, s.vocabulary
        self.hidden = bench.draw(tokens, s.hidden).requires_grad_()
        self.weight = bench.draw(s.vocabulary, s.hidden, scale=2 * s.hidden**-0.5).requires_grad_()
        self.teacher_hidden = bench.draw(tokens, s.teacher_hidden)
        self.teacher_weight = bench.draw(s.vocabulary, s.teacher_hidden, scale=2 * s.teacher_hidden**-0.5)
        self.targets = torch.randint(s.vocabulary, (tokens,), device=bench.device)
        self.coefficients = torch.full((tokens,), 1 / tokens, device=bench.device)

    def ours(self, chunk_tokens: int | None = None, **options: Any) -> Tensor:
        heads = (self.hidden, Head(self.weight), self.teacher_hidden, Head(self.teacher_weight))
        return full_vocabulary_loss(
            *heads, self.targets, self.coefficients, vocab_size=self.vocabulary, chunk_tokens=chunk_tokens, **options
        ).loss

    def naive(self, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Tensor:
        student = self.hidden.to(dtype) @ self.weight.to(dtype).T
        with torch.no_grad():
            teacher = self.teacher_hidden.to(dtype) @ self.teacher_weight.to(dtype).T
        return (self.coefficients * generalized_jsd(student, teacher, **options)).sum()

    def liger(self, **options: Any) -> Tensor:
        from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

        layer = LigerFusedLinearJSD(jsd_beta=options["beta"], accum_dtype=torch.float32)
        return layer(self.hidden, self.weight, self.teacher_hidden, self.teacher_weight, None)

    def liger_chunked(self, **options: Any) -> Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        compiled = self.bench.device == "cuda"
        layer = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=options["beta"], compiled=compiled)
        return layer(self.hidden, self.weight, self.teacher_hidden, self.teacher_weight, self.targets)

    def backward(self, loss: Callable[[], Tensor]) -> Work:
        """Forward and backward. Gradients are dropped at its end: what they take counts as extra for all alike."""

        def work() -> None:
            loss().backward()
            self.hidden.grad = self.weight.grad = None

        return work

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return tuple(g.float() for g in torch.autograd.grad(loss, (self.hidden, self.weight)))

    def floor(self, teacher: bool = True) -> Work:
        grad = self.bench.draw(self.tokens, self.vocabulary)
        hidden, weight = self.hidden.detach(), self.weight.detach()

        def work() -> None:
            _ = hidden @ weight.T
            if teacher:
                _ = self.teacher_hidden @ self.teacher_weight.T
            _, _ = grad @ weight, grad.T @ hidden

        return work


@contextmanager
def without_kernel() -> Iterator[None]:
    """The chunked loss by torch's own operations."""
    kernels = full_vocabulary._kernels
    full_vocabulary._kernels = lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        full_vocabulary._kernels = kernels
