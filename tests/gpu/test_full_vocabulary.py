"""The chunked loss on a GPU: exactness, memory and time against whole logits. Run it by name; it needs torch alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.objectives import full_vocabulary
from renio_pipeline.objectives.full_vocabulary import FullVocabulary, full_vocabulary_loss
from renio_pipeline.objectives.projection import Head

pytestmark = pytest.mark.gpu
QWEN3 = 151936  # rows of its output head


@pytest.fixture(autouse=True, scope="module")
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.fail("tests/gpu needs a CUDA device, and torch sees none; everywhere else run tests/unit and tests/ray")


class Problem:
    def __init__(self, *, tokens: int, vocabulary: int, width: int, dtype: torch.dtype, bias: bool = False) -> None:
        generator = torch.Generator("cuda").manual_seed(0)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=generator, device="cuda") * scale).to(dtype)

        self.vocabulary = vocabulary
        self.hidden = draw(tokens, width).requires_grad_()
        self.weight = draw(vocabulary, width, scale=2 * width**-0.5).requires_grad_()
        self.bias = draw(vocabulary).requires_grad_() if bias else None
        self.student = Head(self.weight, self.bias)
        self.teacher_hidden = draw(tokens, 2 * width)
        self.teacher = Head(draw(vocabulary + 128, 2 * width, scale=2 * (2 * width) ** -0.5))
        self.targets = torch.randint(vocabulary, (tokens,), generator=generator, device="cuda")
        self.coefficients = torch.rand(tokens, generator=generator, device="cuda") / tokens

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in (self.hidden, self.weight, self.bias) if x is not None]

    def chunked(self, **options: Any) -> FullVocabulary:
        heads = (self.hidden, self.student, self.teacher_hidden, self.teacher)
        return full_vocabulary_loss(*heads, self.targets, self.coefficients, vocab_size=self.vocabulary, **options)

    def naive(self, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        """The loss with logits multiplied in `dtype`; None: that of the heads."""

        def logits(hidden: Tensor, head: Head) -> Tensor:
            x = hidden.to(dtype) @ head.weight[: self.vocabulary].to(dtype).T
            return x if head.bias is None else x + head.bias.to(dtype)

        with torch.no_grad():
            teacher = logits(self.teacher_hidden, self.teacher)
        return (self.coefficients * generalized_jsd(logits(self.hidden, self.student), teacher, **options)).sum()


@pytest.mark.parametrize("bias", [False, True], ids=["kernel", "torch alone"])
@pytest.mark.parametrize("entry_clip", [None, 0.05])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_value_and_gradients_are_those_of_float64(
    dtype: torch.dtype, tolerance: float, beta: float, entry_clip: float | None, bias: bool
) -> None:
    """Relative to each gradient's norm. bfloat16 inputs are taken as they are: their logits lose nothing more."""
    problem = Problem(tokens=300, vocabulary=5003, width=64, dtype=dtype, bias=bias)
    options: dict[str, Any] = {"beta": beta, "entry_clip": entry_clip, "temperature": 1.1}
    found = problem.chunked(**options, chunk_tokens=32).loss
    expected = problem.naive(**options, dtype=torch.float64)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    gradients = torch.autograd.grad(found, problem.leaves)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, problem.leaves), strict=True):
        assert gradient.dtype == dtype
        error = (gradient.double() - wanted.double()).norm() / wanted.double().norm()
        assert error < tolerance


class Logits:
    """Of a few tokens, and all that goes with them; on both paths: the kernel's and torch's own operations."""

    def __init__(self, kind: str, beta: float, entry_clip: float | None, token_clip: float | None) -> None:
        C, V = 6, 5003
        torch.manual_seed(0)
        self.student, self.teacher = 3 * torch.randn(2, C, V, device="cuda")
        if kind == "near":  # where a difference of two logarithms would be noise
            self.teacher = self.student + 1e-4 * torch.randn(C, V, device="cuda")
        if kind == "ruled out":
            self.student[:, [5, 9]] = self.teacher[:, [7, 9]] = -math.inf
            self.teacher[0] = -math.inf  # a certain teacher
            self.teacher[0, 3] = 0.0
        heads = (Head(torch.zeros(V, 1), scale=1.3), Head(torch.zeros(V, 1), scale=0.9))
        targets, coefficients = torch.randint(10, V, (C,), device="cuda"), torch.rand(C, device="cuda")
        hidden = torch.zeros(C, 1)
        self.given = full_vocabulary._Given(
            heads[0], hidden, heads[1], targets, coefficients, beta, 1.1, entry_clip, token_clip, V
        )

    def by_torch(self, dtype: torch.dtype) -> list[Tensor]:
        """Divergence, both sides' log-probabilities and the gradient."""
        gradient, rows = self.student.to(dtype, copy=True), slice(0, len(self.student))
        out = [torch.empty(len(self.student), device="cuda", dtype=dtype) for _ in range(3)]
        full_vocabulary._in_blocks(gradient, self.teacher.to(dtype), self.given, rows, True, out=out)
        return [*out, gradient]

    def by_kernel(self, dtype: torch.dtype) -> list[Tensor]:
        kernels, given = full_vocabulary._kernels(), self.given
        assert kernels is not None, "torch's CUDA builds bring Triton"
        gradient = torch.empty_like(self.student, dtype=dtype)
        out = [torch.empty(len(self.student), device="cuda") for _ in range(3)]
        kernels.divergence_and_gradient(
            self.student,
            self.teacher,
            given.targets,
            given.coefficients * (1.3 / 1.1),
            scales=(1.3 / 1.1, 0.9 / 1.1),
            beta=given.beta,
            entry_clip=given.entry_clip,
            token_clip=given.token_clip,
            gradient=gradient,
            out=out,
        )
        return [*out, gradient]


@pytest.mark.parametrize("clips", [(None, None), (0.02, None), (None, 0.5), (0.02, 0.5)], ids=str)
@pytest.mark.parametrize("beta", [0.0, 1e-6, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["far", "near", "ruled out"])
def test_the_kernel_is_as_exact_as_torch_in_float32(kind: str, beta: float, clips: tuple[float | None, float | None]) -> None:
    logits = Logits(kind, beta, *clips)
    exact, plain, found = logits.by_torch(torch.float64), logits.by_torch(torch.float32), logits.by_kernel(torch.float32)
    finite = exact[0].isfinite()
    assert torch.equal(found[0].isfinite(), finite)
    for wanted, by_torch, by_kernel in zip(exact, plain, found, strict=True):
        assert not by_kernel[finite].isnan().any()
        kept = wanted[finite].isfinite()
        wanted, by_torch, by_kernel = (x[finite][kept].double() for x in (wanted, by_torch, by_kernel))
        assert (by_kernel - wanted).norm() <= 4 * (by_torch - wanted).norm() + 2e-6 * wanted.norm()
    half = logits.by_kernel(torch.bfloat16)[3][finite].double()
    assert (half - exact[3][finite]).norm() <= 4e-3 * exact[3][finite].norm()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_kernel_shows_a_nan_though_values_are_clipped(beta: float) -> None:
    logits = Logits("far", beta, 0.05, 1.0)
    logits.student[1, 4] = math.nan
    divergence, *_, gradient = logits.by_kernel(torch.float32)
    assert divergence.isnan().tolist() == [i == 1 for i in range(len(divergence))]
    assert gradient[1].isnan().all()


def test_many_chunks_of_bfloat16_add_up_in_float32() -> None:
    problem = Problem(tokens=2048, vocabulary=1009, width=64, dtype=torch.bfloat16)
    one = torch.autograd.grad(problem.chunked(beta=0.0, chunk_tokens=2048).loss, problem.weight)[0].float()
    many = torch.autograd.grad(problem.chunked(beta=0.0, chunk_tokens=8).loss, problem.weight)[0].float()
    assert (one - many).norm() < 4e-3 * one.norm()  # summed in bfloat16, 256 chunks would be off by several times that


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_and_time_at_8192_tokens_of_a_152k_vocabulary(dtype: torch.dtype) -> None:
    """Extra memory at most a tenth of the naive loss's, and no more time; the naive one is scaled up from 1024
    tokens, since at 8192 it may not fit."""
    options: dict[str, Any] = {"beta": 0.0, "entry_clip": 0.05, "temperature": 1.1}
    naive_bytes, naive_seconds = (8 * cost for cost in costs("naive", 1024, dtype, options))
    chunked_bytes, chunked_seconds = costs("chunked", 8192, dtype, options)
    print(f"\n{dtype}: {chunked_bytes / 2**30:.2f} GiB extra, {chunked_seconds * 1e3:.1f} ms;", end=" ")
    print(f"naive: {naive_bytes / 2**30:.2f} GiB, {naive_seconds * 1e3:.1f} ms")
    assert chunked_bytes <= 0.1 * naive_bytes
    assert chunked_seconds <= naive_seconds


def costs(kind: str, tokens: int, dtype: torch.dtype, options: dict[str, Any]) -> tuple[float, float]:
    """Bytes and seconds of a forward and backward at Qwen3's vocabulary."""
    problem = Problem(tokens=tokens, vocabulary=QWEN3, width=1024, dtype=dtype)

    def loss() -> Tensor:
        return problem.naive(**options) if kind == "naive" else problem.chunked(**options).loss

    return extra_bytes(problem, loss), seconds(problem, loss)


def extra_bytes(problem: Problem, loss: Callable[[], Tensor]) -> int:
    """Peak of a forward and backward above what it starts with and the gradients that it leaves."""
    for leaf in problem.leaves:
        leaf.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss().backward()
    torch.cuda.synchronize()
    gradients = sum(leaf.numel() * leaf.element_size() for leaf in problem.leaves)
    return torch.cuda.max_memory_allocated() - before - gradients


def seconds(problem: Problem, loss: Callable[[], Tensor], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 1):
        for leaf in problem.leaves:
            leaf.grad = None
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        loss().backward()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[1:])  # the first one allocates
