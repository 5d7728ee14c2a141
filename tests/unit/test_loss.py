"""The loss against recorded vectors, a plain-Python recomputation, and every split over micro-batches."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renio_pipeline.loss import loss_magnitudes, per_sample_mean, sampled_token_loss, weighted_loss

VECTORS = json.loads((Path(__file__).parent / "vectors" / "loss.json").read_text())
for_all = settings(deadline=None, derandomize=True)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """per_token [B, T], mask [B, T], weights [B] in float64; empty responses included."""
    B, T = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    value = st.floats(-2.0, 5.0)
    per_token = torch.tensor(draw(st.lists(value, min_size=B * T, max_size=B * T)), dtype=torch.float64)
    lengths = torch.tensor(draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    weights = torch.tensor(draw(st.lists(st.floats(0.0, 10.0), min_size=B, max_size=B)), dtype=torch.float64)
    return per_token.reshape(B, T), torch.arange(T)[None, :] < lengths[:, None], weights


def with_gradient(per_token: Tensor, mask: Tensor, weights: Tensor, parts: list[slice]) -> tuple[float, Tensor]:
    """The loss and its gradient, accumulated over `parts` of the batch as a trainer does."""
    leaf = per_token.clone().requires_grad_()
    value, gradient = 0.0, torch.zeros_like(per_token)
    for part in parts:
        loss = weighted_loss(leaf[part], mask[part], weights[part], batch_size=len(mask))
        value += loss.item()
        gradient += torch.autograd.grad(loss, leaf)[0]
    return value, gradient


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
def test_matches_the_recorded_vectors(case: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    per_token = torch.tensor(case["per_token"], dtype=dtype)
    mask = torch.arange(per_token.shape[1])[None, :] < torch.tensor(case["lengths"])[:, None]
    loss = weighted_loss(per_token, mask, torch.tensor(case["weights"], dtype=dtype))
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(case["loss"], rel=tolerance, abs=tolerance)


@for_all
@given(batches())
def test_agrees_with_a_recomputation_token_by_token(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    expected = []
    for row, real, weight in zip(*(x.tolist() for x in batch), strict=True):
        kept = [d for d, yes in zip(row, real, strict=True) if yes]
        expected.append(weight * math.fsum(kept) / len(kept) if kept else 0.0)
    assert weighted_loss(*batch).item() == pytest.approx(math.fsum(expected) / len(expected), abs=1e-10)


@for_all
@given(batches(), st.integers(0, 9), st.data())
def test_the_mean_over_tokens_agrees_with_a_recomputation_and_adds_up(
    batch: tuple[Tensor, Tensor, Tensor], others: int, data: st.DataObject
) -> None:
    per_token, mask, weights = batch
    factors = torch.rand(per_token.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = int(mask.sum()) + others
    rows = zip(*(x.tolist() for x in (per_token, factors, mask, weights)), strict=True)
    kept = [w * f * d for ds, fs, ms, w in rows for d, f, m in zip(ds, fs, ms, strict=True) if m]
    whole = weighted_loss(*batch, batch_tokens=tokens, factors=factors).item()
    assert whole == pytest.approx(math.fsum(kept) / max(1, tokens), abs=1e-10)
    cut = data.draw(st.integers(0, len(mask)))
    parts = [slice(0, cut), slice(cut, None)]
    found = [weighted_loss(*(x[p] for x in batch), batch_tokens=tokens, factors=factors[p]).item() for p in parts]
    assert math.fsum(found) == pytest.approx(whole, abs=1e-12)


def test_fewer_tokens_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_tokens must count the global batch: at least 6, got 5"):
        weighted_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), batch_tokens=5)


@for_all
@given(batches(), st.sets(st.integers(0, 6)))
def test_every_split_over_micro_batches_gives_the_same_loss_and_gradient(
    batch: tuple[Tensor, Tensor, Tensor], cuts: set[int]
) -> None:
    B = len(batch[1])
    edges = [0, *sorted(min(cut, B) for cut in cuts), B]  # cuts at an end leave a part empty
    parts = [slice(a, b) for a, b in pairwise(edges)]
    whole, whole_gradient = with_gradient(*batch, [slice(None)])
    split, split_gradient = with_gradient(*batch, parts)
    assert split == pytest.approx(whole, abs=1e-12)
    torch.testing.assert_close(split_gradient, whole_gradient, rtol=1e-12, atol=1e-12)


@for_all
@given(batches(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_padding_is_ignored_in_value_and_gradient(batch: tuple[Tensor, Tensor, Tensor], garbage: float) -> None:
    per_token, mask, weights = batch
    clean, clean_gradient = with_gradient(per_token.masked_fill(~mask, 0.0), mask, weights, [slice(None)])
    dirty, dirty_gradient = with_gradient(per_token.masked_fill(~mask, garbage), mask, weights, [slice(None)])
    assert dirty == clean
    assert dirty_gradient.tolist() == clean_gradient.tolist()
    assert (dirty_gradient[~mask] == 0).all()


def test_each_token_pulls_with_its_weight_over_batch_size_and_length() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    _, gradient = with_gradient(torch.ones(3, 3), mask, torch.tensor([2.0, 0.5, 7.0]), [slice(None)])
    third, ninth = 2 / (3 * 2), 0.5 / (3 * 3)
    torch.testing.assert_close(gradient, torch.tensor([[third, third, 0], [ninth, ninth, ninth], [0, 0, 0]]))


def factors_of(batch: tuple[Tensor, Tensor, Tensor], seed: int) -> Tensor:
    return 3 * torch.rand(batch[0].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@for_all
@given(batches(), st.integers(0, 99))
def test_token_factors_scale_each_tokens_part_and_leave_the_denominators(
    batch: tuple[Tensor, Tensor, Tensor], seed: int
) -> None:
    per_token, mask, weights = batch
    factors = factors_of(batch, seed)
    expected = math.fsum(
        w * f * d / sum(real) / len(mask)
        for w, real, own, row in zip(weights.tolist(), mask.tolist(), factors.tolist(), per_token.tolist(), strict=True)
        for f, d, yes in zip(own, row, real, strict=True)
        if yes
    )
    leaf = per_token.clone().requires_grad_()
    garbage = factors.masked_fill(~mask, math.nan)
    loss = weighted_loss(leaf.masked_fill(~mask, math.inf), mask, weights, factors=garbage)
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    (gradient,) = torch.autograd.grad(loss, leaf)
    pull = (weights / mask.sum(1).clamp(min=1) / len(mask))[:, None] * factors
    torch.testing.assert_close(gradient, pull.masked_fill(~mask, 0.0))


@for_all
@given(batches())
def test_factors_of_one_change_no_digit(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    assert weighted_loss(*batch, factors=torch.ones_like(batch[0])).item() == weighted_loss(*batch).item()


@for_all
@given(batches(), st.integers(0, 99), st.sampled_from([0.0, 0.5, 2.0, 8.0]))
def test_the_loss_is_linear_in_the_factors(batch: tuple[Tensor, Tensor, Tensor], seed: int, scale: float) -> None:
    factors = factors_of(batch, seed)
    assert weighted_loss(*batch, factors=scale * factors).item() == scale * weighted_loss(*batch, factors=factors).item()


def test_factors_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"per_token and factors must both be \[B, T\], got \(2, 3\), \(2, 2\)"):
        weighted_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), factors=torch.ones(2, 2))


@for_all
@given(batches(), st.lists(st.integers(0, 6), min_size=8, max_size=8), st.integers(0, 7))
def test_magnitudes_are_those_of_the_loss_and_of_its_part_after_a_token(
    batch: tuple[Tensor, Tensor, Tensor], untils: list[int], cut: int
) -> None:
    per_token, mask, weights = batch
    lengths = mask.sum(1)
    until = [1 + n % T if n and T else None for n, T in zip(untils, lengths.tolist(), strict=False)]
    weighed = [
        (w * abs(d) / T, n is not None and t >= n)
        for row, real, w, T, n in zip(per_token.tolist(), mask.tolist(), weights.tolist(), lengths.tolist(), until, strict=True)
        for t, (d, yes) in enumerate(zip(row, real, strict=True))
        if yes
    ]
    parts = [slice(0, cut), slice(cut, None)]
    found = [loss_magnitudes(per_token[p][mask[p]], weights[p].tolist(), lengths[p], until[p]) for p in parts]
    whole, after = (math.fsum(values) for values in zip(*found, strict=True))
    assert whole == pytest.approx(math.fsum(x for x, _ in weighed), rel=1e-5)
    assert after == pytest.approx(math.fsum(x for x, later in weighed if later), rel=1e-5)
    if (per_token[mask] >= 0).all() and (weights >= 0).all():
        assert whole / len(mask) == pytest.approx(weighted_loss(*batch).item(), rel=1e-5, abs=1e-9)


def test_an_empty_response_counts_in_the_batch_and_adds_nothing() -> None:
    loss = weighted_loss(torch.full((2, 2), 3.0), torch.tensor([[1, 1], [0, 0]]), torch.ones(2))
    assert loss.item() == pytest.approx(1.5)


def test_weights_get_no_gradient() -> None:
    per_token, weights = torch.rand(2, 3, requires_grad=True), torch.rand(2, requires_grad=True)
    loss = weighted_loss(per_token, torch.ones(2, 3), weights)
    pull, none = torch.autograd.grad(loss, (per_token, weights), allow_unused=True)
    assert (pull > 0).all()
    assert none is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_fp32(dtype: torch.dtype) -> None:
    per_token = torch.rand(2, 4000).to(dtype)
    loss = weighted_loss(per_token, torch.ones(2, 4000), torch.ones(2, dtype=dtype))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(per_token.double().mean().item(), rel=1e-5)


def test_nan_on_a_response_token_is_not_hidden() -> None:
    per_token = torch.tensor([[1.0, math.nan], [1.0, 1.0]])
    assert per_sample_mean(per_token, torch.ones(2, 2)).isnan().tolist() == [True, False]
    assert weighted_loss(per_token, torch.ones(2, 2), torch.ones(2)).isnan()


@pytest.mark.parametrize(
    ("shapes", "batch_size", "message"),
    [
        (((2, 3), (2, 4), (2,)), None, r"per_token and mask must both be \[B, T\], got \(2, 3\), \(2, 4\)"),
        (((3,), (3,), (3,)), None, r"must both be \[B, T\]"),
        (((2, 3), (2, 3), (3,)), None, r"weights must be one per sequence, \(2,\), got \(3,\)"),
        (((2, 3), (2, 3), (2, 1)), None, r"weights must be one per sequence"),
        (((2, 3), (2, 3), (2,)), 1, r"at least 1 and 2 given here, got 1"),
        (((0, 3), (0, 3), (0,)), None, r"at least 1 and 0 given here, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(shapes: Any, batch_size: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_loss(*(torch.ones(shape) for shape in shapes), batch_size=batch_size)


def test_sampled_token_loss_holds_the_advantage_constant() -> None:
    student = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    teacher = torch.tensor([[-0.5, -5.0]], requires_grad=True)
    loss = sampled_token_loss(student, teacher)
    assert loss.tolist() == [[0.5, -6.0]]
    pull, none = torch.autograd.grad(loss.sum(), (student, teacher), allow_unused=True)
    assert pull.tolist() == [[-0.5, 3.0]]  # −A: down the gradient, the token that the teacher prefers gets likelier
    assert none is None


def test_sampled_token_gradient_averages_to_that_of_the_reverse_kl() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    teacher = torch.log_softmax(torch.randn(6, dtype=torch.float64), dim=-1)
    student = torch.log_softmax(logits, dim=-1)
    p = student.exp()
    expected = torch.autograd.grad((p * (student - teacher)).sum(), logits, retain_graph=True)[0]
    per_token = sampled_token_loss(student[None], teacher[None])[0]
    averaged = torch.autograd.grad((p.detach() * per_token).sum(), logits)[0]
    torch.testing.assert_close(averaged, expected, rtol=1e-12, atol=1e-12)


def test_sampled_token_loss_is_fp32_at_least_and_refuses_shapes_that_differ() -> None:
    assert sampled_token_loss(torch.zeros(1, 2).bfloat16(), torch.zeros(1, 2).bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"got \(1, 2\), \(1, 3\)"):
        sampled_token_loss(torch.zeros(1, 2), torch.zeros(1, 3))


@st.composite
def sampled_tokens(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float]:
    """student, teacher, behaviour [B, T] log-probabilities in float64, and a clip."""
    B, T = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    values = st.lists(st.floats(-60.0, 0.0), min_size=B * T, max_size=B * T)
    tables = [torch.tensor(draw(values), dtype=torch.float64).reshape(B, T) for _ in range(3)]
    return tables[0], tables[1], tables[2], draw(st.floats(0.01, 20.0))


@for_all
@given(sampled_tokens())
def test_the_truncated_ratio_agrees_with_numpy_in_value_and_gradient(tokens: tuple[Tensor, Tensor, Tensor, float]) -> None:
    student, teacher, behaviour, clip = tokens
    leaf, other = student.clone().requires_grad_(), behaviour.clone().requires_grad_()
    loss = sampled_token_loss(leaf, teacher, behaviour_logprobs=other, importance_clip=clip)
    now, then, theirs = student.numpy(), behaviour.numpy(), teacher.numpy()
    ratio = np.minimum(np.exp(now) / np.exp(then), clip)
    np.testing.assert_allclose(loss.detach().numpy(), -ratio * (theirs - now) * now, rtol=1e-9, atol=1e-12)
    pull, none = torch.autograd.grad(loss.sum(), (leaf, other), allow_unused=True)
    np.testing.assert_allclose(pull.numpy(), -ratio * (theirs - now), rtol=1e-9, atol=1e-12)
    assert none is None


@for_all
@given(sampled_tokens())
def test_a_ratio_of_one_changes_nothing(tokens: tuple[Tensor, Tensor, Tensor, float]) -> None:
    student, teacher, _, clip = tokens
    plain = sampled_token_loss(student, teacher)
    same = sampled_token_loss(student, teacher, behaviour_logprobs=student, importance_clip=max(1.0, clip))
    assert same.tolist() == plain.tolist()


@for_all
@given(sampled_tokens(), st.lists(st.integers(0, 5), min_size=4, max_size=4))
def test_padding_stays_inert_under_the_ratio(tokens: tuple[Tensor, Tensor, Tensor, float], lengths: list[int]) -> None:
    student, teacher, behaviour, clip = tokens
    mask = torch.arange(student.shape[1])[None, :] < torch.tensor(lengths[: len(student)])[:, None]

    def of(padding: float) -> tuple[float, Tensor]:
        leaf, *rest = (t.masked_fill(~mask, padding) for t in (student, teacher, behaviour))
        leaf.requires_grad_()
        per_token = sampled_token_loss(leaf, rest[0], behaviour_logprobs=rest[1], importance_clip=clip)
        loss = weighted_loss(per_token, mask, torch.ones(len(mask)))
        return loss.item(), torch.autograd.grad(loss, leaf)[0]

    (clean, clean_pull), (dirty, dirty_pull) = of(0.0), of(-1e30)
    assert dirty == clean
    assert dirty_pull.tolist() == clean_pull.tolist()
    assert (dirty_pull[~mask] == 0).all()


def test_a_token_that_the_behaviour_all_but_excluded_counts_no_more_than_the_clip() -> None:
    student = torch.tensor([[-1.0]])
    loss = sampled_token_loss(student, torch.zeros(1, 1), behaviour_logprobs=torch.tensor([[-3e38]]), importance_clip=2.0)
    assert loss.tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"importance_clip": 2.0}, "got 2.0 without behaviour_logprobs"),
        ({"behaviour_logprobs": torch.zeros(1, 2)}, "got None with behaviour_logprobs"),
        ({"behaviour_logprobs": torch.zeros(1, 2), "importance_clip": 0.0}, "above 0, got 0.0"),
        ({"behaviour_logprobs": torch.zeros(1, 3), "importance_clip": 2.0}, r"got \(1, 2\), \(1, 3\)"),
    ],
)
def test_a_ratio_that_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled_token_loss(torch.zeros(1, 2), torch.zeros(1, 2), **more)
