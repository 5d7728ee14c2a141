"""The chunked loss against autograd of `generalized_jsd` on whole logits and against plain NumPy; what it makes and holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.objectives import chunked
from renio_pipeline.objectives.full_vocabulary import FullVocabulary, full_vocabulary_loss
from renio_pipeline.objectives.projection import Head

N, V, H = 7, 13, 5


class Problem:
    """Hidden states, heads and the rest, drawn at random: the student's require gradients."""

    def __init__(self, seed: int = 0, *, dtype: torch.dtype = torch.float64, tokens: int = N, bias: bool = True) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.hidden = draw(tokens, H).requires_grad_()
        self.weight = draw(V, H).requires_grad_()
        self.bias = draw(V).requires_grad_() if bias else None
        self.student = Head(self.weight, self.bias)
        self.teacher_hidden = draw(tokens, H + 2)
        self.teacher = Head(draw(V + 4, H + 2), draw(V + 4))
        self.targets = torch.randint(V, (tokens,), generator=generator)
        self.coefficients = draw(tokens).abs()

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in (self.hidden, self.weight, self.bias) if x is not None]

    def chunked(self, **options: Any) -> FullVocabulary:
        options = {"beta": 0.0, "vocab_size": V, "chunk_tokens": 3} | options
        heads = (self.hidden, self.student, self.teacher_hidden, self.teacher)
        return full_vocabulary_loss(*heads, self.targets, self.coefficients, **options)

    def naive(self, *, vocab_size: int = V, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, per token, log p_S and log p_T of the targets, in float64, by autograd on [N, V]."""
        student = whole_logits(self.hidden, self.student, vocab_size)
        teacher = whole_logits(self.teacher_hidden, self.teacher, vocab_size).detach()
        options = {"beta": 0.0} | options
        per_token = generalized_jsd(student, teacher, **options)
        logs = [torch.log_softmax(x / options.get("temperature", 1.0), -1) for x in (student, teacher)]
        picked = [log.gather(1, self.targets[:, None])[:, 0].detach() for log in logs]
        return (self.coefficients.double() * per_token).sum(), per_token.detach(), *picked

    def check(self, *, tolerance: float = 1e-10, chunk_tokens: int | None = 3, incoming: float = 1.0, **options: Any) -> None:
        found, expected = self.chunked(chunk_tokens=chunk_tokens, **options), self.naive(**options)
        values = (found.loss, found.per_token, found.student_logprobs, found.teacher_logprobs)
        for value, wanted in zip(values, expected, strict=True):
            torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)
        for gradient, wanted in zip(
            torch.autograd.grad(found.loss, self.leaves, torch.full_like(found.loss, incoming)),
            torch.autograd.grad(expected[0], self.leaves, torch.full_like(expected[0], incoming)),
            strict=True,
        ):
            assert gradient.dtype == wanted.dtype
            torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance)


def whole_logits(hidden: Tensor, head: Head, vocab_size: int = V) -> Tensor:
    x = hidden.double() @ head.weight.double().T
    if head.bias is not None:
        x = x + head.bias.double()
    if head.soft_cap is not None:
        x = head.soft_cap * torch.tanh(x / head.soft_cap)
    return (head.scale * x)[:, :vocab_size]


class Recorder(TorchDispatchMode):
    """The operators that ran, and the largest tensor that one of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators.append(func.overloadpacket.__name__)
        self.largest = max([self.largest, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


@contextmanager
def blocks_of(rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "BLOCK_ELEMENTS", rows * V)
        yield


@pytest.mark.parametrize("cap_tokens", [False, True])
@pytest.mark.parametrize("entry_clip", [None, 0.05])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_value_and_gradients_are_those_of_autograd_on_whole_logits(
    dtype: torch.dtype, tolerance: float, beta: float, entry_clip: float | None, cap_tokens: bool
) -> None:
    problem = Problem(dtype=dtype)
    options: dict[str, Any] = {"beta": beta, "entry_clip": entry_clip, "temperature": 1.1}
    if cap_tokens:  # some of them
        options["token_clip"] = problem.naive(**options)[1].mean().item()
    problem.check(tolerance=tolerance, **options)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("student", [{}, {"scale": 0.3}, {"soft_cap": 2.0}, {"scale": 1.7, "soft_cap": 1.5}])
@pytest.mark.parametrize("teacher", [{"scale": 1.4}, {"soft_cap": 3.0, "bias": None}])
def test_scale_soft_cap_and_bias_of_either_head(student: dict[str, Any], teacher: dict[str, Any], beta: float) -> None:
    problem = Problem(bias=student != {})
    problem.student, problem.teacher = replace(problem.student, **student), replace(problem.teacher, **teacher)
    problem.check(beta=beta, temperature=0.8, entry_clip=0.1)


def test_padded_rows_of_either_head_neither_count_nor_learn() -> None:
    problem = Problem()
    problem.targets = problem.targets % 9
    with torch.no_grad():
        problem.weight[9:] = 1e3
    problem.check(vocab_size=9, beta=0.5)
    problem.chunked(vocab_size=9, beta=0.5).loss.backward()
    assert problem.weight.grad is not None
    assert problem.weight.grad[:9].abs().min() > 0
    assert problem.weight.grad[9:].abs().max() == 0


@pytest.mark.parametrize("rows", [1, 2, N])
@pytest.mark.parametrize("chunk_tokens", [1, 3, N, N + 5, None])
def test_no_chunk_or_block_size_changes_anything(chunk_tokens: int | None, rows: int) -> None:
    with blocks_of(rows):
        Problem().check(chunk_tokens=chunk_tokens, beta=0.3, entry_clip=0.05)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    beta=st.sampled_from([0.0, 1.0]) | st.floats(0.01, 0.99),
    temperature=st.floats(0.5, 2.0),
    entry_clip=st.none() | st.floats(1e-3, 1.0),
    token_clip=st.none() | st.floats(0.05, 3.0),
    chunk_tokens=st.integers(1, N + 1),
    soft_cap=st.none() | st.floats(0.5, 30.0),
    scale=st.floats(0.1, 3.0),
    incoming=st.sampled_from([1.0, -2.5, 1e-3]),
)
def test_any_options(seed: int, soft_cap: float | None, scale: float, **options: Any) -> None:
    problem = Problem(seed)
    problem.student = replace(problem.student, soft_cap=soft_cap, scale=scale)
    problem.check(tolerance=1e-9, **options)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_plain_numpy_and_differences_agree(beta: float) -> None:
    problem = Problem()
    x = {name: tensor.detach().numpy() for name, tensor in zip(("h", "w", "b"), problem.leaves, strict=True)}
    q = probabilities(problem.teacher_hidden.numpy() @ problem.teacher.weight.numpy().T + problem.teacher.bias.numpy())

    def loss() -> float:
        p = probabilities(x["h"] @ x["w"].T + x["b"])
        m = (1 - beta) * p + beta * q
        if beta == 0:
            entries = q * np.log(q / p)
        elif beta == 1:
            entries = p * np.log(p / q)
        else:
            entries = beta * q * np.log(q / m) + (1 - beta) * p * np.log(p / m)
        return float((problem.coefficients.numpy() * np.clip(entries, 0, 0.05).sum(1)).sum())

    found = problem.chunked(beta=beta, entry_clip=0.05)
    assert found.loss.item() == pytest.approx(loss(), abs=1e-12)
    found.loss.backward()
    for array, leaf in zip(x.values(), problem.leaves, strict=True):
        assert leaf.grad is not None
        for index in list(np.ndindex(array.shape))[::7]:
            before, step = array[index], 1e-6
            array[index] = before + step
            above = loss()
            array[index] = before - step
            slope = (above - loss()) / (2 * step)
            array[index] = before
            assert leaf.grad[index].item() == pytest.approx(slope, abs=1e-7)


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits[:, :V])
    return e / e.sum(1, keepdims=True)


def test_coefficients_scale_the_gradients_and_zero_silences_a_token() -> None:
    problem = Problem()
    once = torch.autograd.grad(problem.chunked().loss, problem.leaves)
    problem.coefficients = problem.coefficients * 3
    for thrice, one in zip(torch.autograd.grad(problem.chunked().loss, problem.leaves), once, strict=True):
        torch.testing.assert_close(thrice, 3 * one)
    problem.coefficients[2] = 0
    problem.chunked().loss.backward()
    assert problem.hidden.grad is not None
    assert problem.hidden.grad[2].abs().max() == 0
    assert problem.hidden.grad[3].abs().min() > 0


def test_coefficients_teacher_and_reports_carry_no_gradient() -> None:
    problem = Problem()
    problem.coefficients.requires_grad_()
    problem.teacher_hidden.requires_grad_()
    problem.teacher.weight.requires_grad_()
    found = problem.chunked()
    found.loss.backward()
    assert problem.coefficients.grad is problem.teacher_hidden.grad is problem.teacher.weight.grad is None
    assert not any(x.requires_grad for x in (found.per_token, found.student_logprobs, found.teacher_logprobs))


def test_a_weight_used_elsewhere_too_gathers_both_gradients() -> None:
    def tied(problem: Problem, chunked: bool) -> Tensor:
        problem.hidden = torch.tanh(problem.weight[problem.targets] * 2)
        return problem.chunked(beta=0.5).loss if chunked else problem.naive(beta=0.5)[0]

    problem = Problem()
    leaves = [problem.weight, problem.bias]
    for found, wanted in zip(
        torch.autograd.grad(tied(problem, True), leaves), torch.autograd.grad(tied(problem, False), leaves), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_a_parameter_hears_of_its_gradient_once_a_backward_and_keeps_it_without_a_copy() -> None:
    problem = Problem()
    heard: list[str] = []
    problem.weight.register_hook(lambda grad: heard.append("gradient"))
    problem.weight.register_post_accumulate_grad_hook(lambda weight: heard.append("accumulated"))
    loss = problem.chunked(chunk_tokens=2).loss
    with Recorder() as seen:
        loss.backward()
    assert heard == ["gradient", "accumulated"]
    assert seen.operators
    assert not {"clone", "copy_"} & set(seen.operators)
    problem.chunked(chunk_tokens=2).loss.backward()
    assert heard == ["gradient", "accumulated"] * 2
    torch.testing.assert_close(problem.weight.grad, 2 * torch.autograd.grad(problem.naive()[0], problem.weight)[0])


def test_a_second_backward_is_refused_rather_than_wrong() -> None:
    problem = Problem()
    loss = problem.chunked().loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward"):
        loss.backward()


def test_no_tokens_are_a_zero_with_zero_gradients() -> None:
    problem = Problem(tokens=0)
    found = problem.chunked(chunk_tokens=None)
    found.loss.backward()
    assert found.loss.item() == 0
    assert found.per_token.shape == found.student_logprobs.shape == found.teacher_logprobs.shape == (0,)
    for leaf in problem.leaves:
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
        assert not leaf.grad.any()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_nothing_as_large_as_all_logits_is_made(beta: float) -> None:
    problem = Problem(tokens=50)
    with Recorder() as seen, blocks_of(2):
        problem.chunked(beta=beta, entry_clip=0.05, token_clip=1.0, chunk_tokens=10).loss.backward()
    assert seen.largest == 50 * H  # the hidden states' gradient; a chunk's logits are 10 * V, all of them 50 * V
    with Recorder() as seen:
        problem.naive(beta=beta)[0].backward()
    assert seen.largest == 50 * (V + 4)


def test_frozen_inputs_cost_no_products() -> None:
    def products(problem: Problem) -> int:
        with Recorder() as seen:
            problem.chunked(chunk_tokens=N)
        return seen.operators.count("mm") + seen.operators.count("addmm_")

    problem = Problem()
    assert products(problem) == 4
    problem.weight.requires_grad_(False)
    assert products(problem) == 3
    problem.hidden.requires_grad_(False)
    assert products(problem) == 2
    assert problem.bias is not None
    problem.chunked().loss.backward()
    torch.testing.assert_close(problem.bias.grad, torch.autograd.grad(problem.naive()[0], problem.bias)[0])
    with torch.no_grad():
        assert products(Problem()) == 2
        assert not Problem().chunked().loss.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_certain_teacher_and_a_certain_student_stay_finite(beta: float, dtype: torch.dtype) -> None:
    for side in ("student", "teacher", "both"):
        problem = Problem(dtype=dtype)
        with torch.no_grad():
            problem.hidden.mul_(1 if side == "teacher" else 1e3)
            problem.teacher_hidden.mul_(1 if side == "student" else 1e3)
        problem.check(beta=beta, tolerance=1e-10 if dtype == torch.float64 else 1e-2)


@pytest.mark.parametrize("clip", ["entry_clip", "token_clip"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_token_ruled_out_by_an_infinite_bias_has_its_limit(beta: float, clip: str) -> None:
    problem = Problem()
    assert problem.teacher.bias is not None
    with torch.no_grad():
        problem.student.bias[[1, 2]] = -math.inf  # type: ignore[index]
        problem.teacher.bias[[2, 3]] = -math.inf
    problem.targets = problem.targets % 1
    problem.check(beta=beta, **{clip: 0.05})


@pytest.mark.parametrize("beta", [0.3, 0.5, 0.9])
def test_in_float32_a_student_near_its_teacher_still_gets_its_gradient(beta: float) -> None:
    """Its entries are of second order: from rounded logarithms half would come out below 0, and the clip would stop them."""
    problem = Problem(dtype=torch.float32)
    problem.teacher = Head(torch.cat([problem.weight.detach() * (1 + 1e-3), torch.zeros(3, H)]))
    problem.student = Head(problem.weight)
    problem.bias, problem.teacher_hidden = None, problem.hidden.detach()
    options: dict[str, Any] = {"beta": beta, "entry_clip": 0.05}
    found = torch.autograd.grad(problem.chunked(**options).loss, problem.leaves)
    for gradient, wanted in zip(found, torch.autograd.grad(problem.naive(**options)[0], problem.leaves), strict=True):
        assert (gradient - wanted).norm() < 3e-3 * wanted.norm()


@pytest.mark.parametrize("beta", [1e-12, 1 - 1e-12])
def test_a_beta_next_to_an_end_is_finite_in_float32(beta: float) -> None:
    problem = Problem(dtype=torch.float32)
    with torch.no_grad():
        problem.hidden.mul_(100)
        problem.teacher_hidden.mul_(100)
    problem.check(beta=beta, tolerance=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_heads_are_multiplied_and_summed_in_float32(dtype: torch.dtype) -> None:
    """Against float64 on the same halves: only the last rounding, of the gradient to its parameter's type, remains."""
    problem = Problem(dtype=dtype, tokens=64)
    found = problem.chunked(chunk_tokens=1)
    expected = problem.naive()
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.per_token.double(), expected[1], rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(found.loss, problem.leaves)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected[0], problem.leaves), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=torch.finfo(dtype).eps, atol=1e-4)


def test_a_teacher_of_another_precision() -> None:
    problem = Problem(dtype=torch.float32)
    assert problem.teacher.bias is not None
    double = Head(problem.teacher.weight.double(), problem.teacher.bias.double())
    for beta in (0.0, 0.5, 1.0):
        problem.teacher = double
        problem.check(beta=beta, tolerance=1e-5, entry_clip=0.05)
        problem.teacher = Head(double.weight.to(torch.bfloat16), double.bias)
        problem.teacher_hidden = problem.teacher_hidden.to(torch.bfloat16)
        problem.check(beta=beta, tolerance=1e-5, entry_clip=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 1.5}, "beta must lie in"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"entry_clip": 0.0}, "entry_clip must be positive"),
        ({"token_clip": -1.0}, "token_clip must be positive"),
        ({"chunk_tokens": 0}, "chunk_tokens must be at least 1"),
        ({"vocab_size": V + 1}, "rows of the student's head"),
        ({"vocab_size": V - 1}, "targets must lie in"),
        ({"hidden": torch.zeros(N, H + 1)}, "student: hidden states must be"),
        ({"teacher_hidden": torch.zeros(N + 1, H + 2)}, "teacher: hidden states must be"),
        ({"coefficients": torch.zeros(N + 1)}, "targets and coefficients"),
        ({"student": Head(torch.zeros(V, H), torch.zeros(V + 1))}, "bias must be"),
        ({"student": Head(torch.zeros(V, H), soft_cap=0.0)}, "soft_cap must be positive"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    problem = Problem()
    problem.targets[0] = V - 1
    options = {key: value for key, value in change.items() if not hasattr(problem, key)}
    for key in change.keys() - options.keys():
        setattr(problem, key, change[key])
    with pytest.raises(ValueError, match=message):
        problem.chunked(**options)
