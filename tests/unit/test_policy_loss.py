"""The policy gradient on rewards: against TRL's own numbers, plain Python, and its properties."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renio_pipeline.loss import weighted_loss
from renio_pipeline.policy_loss import clipped_policy_loss, is_clipped, reference_divergence

VECTORS = json.loads((Path(__file__).parent / "vectors" / "grpo.json").read_text())["cases"]
for_all = settings(deadline=None, derandomize=True)
TOKENS = st.lists(st.tuples(st.floats(-5, 0), st.floats(-5, 0), st.floats(-3, 3)), min_size=1, max_size=8)


def padded(rows: list[list[float]]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.float64) for row in rows], batch_first=True)


@pytest.mark.parametrize("case", VECTORS, ids=range(len(VECTORS)))
def test_loss_gradient_and_measures_are_those_of_trl(case: dict[str, Any]) -> None:
    student, behaviour, reference = (padded(case[name]) for name in ("student", "behaviour", "reference"))
    mask = torch.arange(student.shape[1])[None] < torch.tensor(case["lengths"])[:, None]
    advantages = torch.tensor(case["advantages"], dtype=torch.float64)[:, None].expand(student.shape)
    bounds = {"low": case["clip_low"], "high": case["clip_high"]}
    student.requires_grad_()
    per_token = clipped_policy_loss(student, behaviour, advantages, **bounds)
    per_token = per_token + case["kl"] * reference_divergence(student, reference)
    tokens = int(mask.sum()) if case["normalization"] == "token" else None
    loss = weighted_loss(per_token, mask, torch.ones(len(mask)), batch_tokens=tokens)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-6, abs=1e-9)
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad[mask], padded(case["gradient"])[mask], rtol=1e-6, atol=1e-9)
    assert is_clipped(student, behaviour, advantages, **bounds)[mask].double().mean().item() == pytest.approx(case["clipped"])
    if case["divergence"] is not None:
        assert reference_divergence(student, reference)[mask].mean().item() == pytest.approx(case["divergence"], rel=1e-6)


@for_all
@given(TOKENS, st.floats(0.05, 1), st.floats(0.05, 2))
def test_each_token_agrees_with_plain_python_and_is_clipped_where_its_gradient_is_zero(
    tokens: list[tuple[float, float, float]], low: float, high: float
) -> None:
    student, behaviour, advantages = torch.tensor(tokens, dtype=torch.float64).unbind(1)
    student = student.clone().requires_grad_()
    found = clipped_policy_loss(student, behaviour, advantages, low=low, high=high)
    found.sum().backward()
    clipped = is_clipped(student, behaviour, advantages, low=low, high=high)
    assert student.grad is not None
    for n, (own, old, advantage) in enumerate(tokens):
        ratio = math.exp(own - old)
        expected = -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
        assert found[n].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        if min(abs(ratio - 1 + low), abs(ratio - 1 - high)) > 1e-9:
            assert student.grad[n].item() == pytest.approx(0 if clipped[n] else -ratio * advantage, rel=1e-9, abs=1e-12)


@for_all
@given(TOKENS)
def test_on_policy_the_gradient_is_that_of_the_log_probability_times_the_advantage(
    tokens: list[tuple[float, float, float]],
) -> None:
    student, _, advantages = torch.tensor(tokens, dtype=torch.float64).unbind(1)
    leaf = student.clone().requires_grad_()
    clipped_policy_loss(leaf, student, advantages, low=0.2, high=0.2).sum().backward()
    torch.testing.assert_close(leaf.grad, -advantages)


def test_the_divergence_from_a_reference_is_never_negative_and_has_the_exact_one_as_its_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    student, reference = (torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    found = reference_divergence(student, reference)
    assert (found >= 0).all()
    exact = (student.exp() * (student - reference)).sum()
    assert (student.exp() * found).sum().item() == pytest.approx(exact.item(), rel=1e-12)
    assert reference_divergence(student, student).abs().max() == 0


def test_bfloat16_is_computed_in_float32_and_shapes_that_differ_are_refused() -> None:
    half = torch.full((2, 3), -1.0, dtype=torch.bfloat16)
    assert clipped_policy_loss(half, half, torch.ones(2, 3), low=0.2, high=0.2).dtype == torch.float32
    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3\), \(2, 3\), \(2,\)"):
        clipped_policy_loss(half, half, torch.ones(2), low=0.2, high=0.2)
