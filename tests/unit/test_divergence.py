"""The divergences against recorded vectors, plain-Python sums, autograd of a naive form, and information theory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from renio_pipeline.divergence import generalized_jsd, top_k_forward_kl, top_k_support

VECTORS = json.loads((Path(__file__).parent / "vectors" / "divergence.json").read_text())
BETAS = [0.0, 1.0, 0.5, 0.3]
INF = math.inf
for_all = settings(deadline=None, derandomize=True)

beta_values = st.sampled_from(BETAS) | st.floats(0.01, 0.99)
temperatures = st.sampled_from([0.7, 1.0, 1.1])


@st.composite
def logit_pairs(draw: st.DrawFn, least: int = 1) -> Tensor:
    """Student and teacher logits of one token, [2, V] in float64."""
    V = draw(st.integers(least, 8))
    values = draw(st.lists(st.floats(-12.0, 12.0), min_size=2 * V, max_size=2 * V))
    return torch.tensor(values, dtype=torch.float64).reshape(2, V)


def plain_probabilities(logits: list[float], temperature: float = 1.0) -> list[float]:
    top = max(logits)
    e = [math.exp((x - top) / temperature) for x in logits]
    return [x / math.fsum(e) for x in e]


def plain_kl_entry(p: float, q: float) -> float:
    if p == 0:
        return 0.0
    return p * math.log(p / q) if q > 0 else INF


def plain_sum(entries: list[float], entry_clip: float | None, token_clip: float | None = None) -> float:
    if entry_clip is not None:
        entries = [min(max(x, 0.0), entry_clip) for x in entries]
    total = math.fsum(entries)
    return total if token_clip is None else min(total, token_clip)


def plain_jsd(
    student: list[float], teacher: list[float], beta: float, temperature: float = 1.0, entry_clip: float | None = None
) -> float:
    """From probabilities, one entry at a time: where the product goes through logarithms, this does not."""
    entries = []
    p_s, p_t = plain_probabilities(student, temperature), plain_probabilities(teacher, temperature)
    for s, t in zip(p_s, p_t, strict=True):
        if beta == 0:
            entries.append(plain_kl_entry(t, s))
        elif beta == 1:
            entries.append(plain_kl_entry(s, t))
        else:
            m = (1 - beta) * s + beta * t
            entries.append(beta * plain_kl_entry(t, m) + (1 - beta) * plain_kl_entry(s, m))
    return plain_sum(entries, entry_clip)


def plain_top_k(student: list[float], teacher: list[float], tail: bool, entry_clip: float | None = None) -> float:
    """Forward KL over the given tokens' probabilities."""
    if tail:
        student, teacher = ([*p, max(1 - math.fsum(p), 1e-7)] for p in (student, teacher))
    else:
        student, teacher = ([x / math.fsum(p) for x in p] for p in (student, teacher))
    return plain_sum([plain_kl_entry(t, s) for s, t in zip(student, teacher, strict=True)], entry_clip)


def naive_entries(student_logits: Tensor, teacher_logits: Tensor, beta: float) -> Tensor:
    """Textbook entries for autograd to differentiate, out of plain probabilities."""
    s, t = torch.softmax(student_logits, -1), torch.softmax(teacher_logits, -1)
    if beta == 0:
        return t * torch.log(t / s)
    if beta == 1:
        return s * torch.log(s / t)
    m = (1 - beta) * s + beta * t
    return beta * t * torch.log(t / m) + (1 - beta) * s * torch.log(s / m)


def gradient(value: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), leaf)[0]


# --- over the whole vocabulary ---


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: "beta{beta}-clip{entry_clip}".format(**case["settings"]))
def test_matches_the_recorded_vectors(case: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = (torch.tensor(case[f"{side}_logits"], dtype=dtype) for side in ("student", "teacher"))
    out = generalized_jsd(student, teacher, **case["settings"])
    expected = torch.tensor(case["per_token"], dtype=dtype)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)


@for_all
@given(logit_pairs(), beta_values, temperatures, st.none() | st.floats(0.001, 0.3))
def test_agrees_with_a_sum_entry_by_entry(logits: Tensor, beta: float, temperature: float, entry_clip: float | None) -> None:
    out = generalized_jsd(*logits, beta=beta, temperature=temperature, entry_clip=entry_clip).item()
    student, teacher = logits.tolist()
    expected = plain_jsd(student, teacher, beta, temperature, entry_clip)
    assert out == pytest.approx(expected, rel=1e-9, abs=1e-12)


@for_all
@given(logit_pairs(least=2), beta_values, st.floats(-5, 5))
def test_unclipped_it_is_positive_and_zero_only_for_equal_distributions(logits: Tensor, beta: float, shift: float) -> None:
    student, teacher = logits
    assert generalized_jsd(student, student + shift, beta=beta).item() == pytest.approx(0.0, abs=1e-14)
    apart = (torch.softmax(student, -1) - torch.softmax(teacher, -1)).abs().max()
    assume(apart > 1e-3)
    assert generalized_jsd(student, teacher, beta=beta).item() > 1e-9


@for_all
@given(logit_pairs(), beta_values)
def test_swapping_the_sides_mirrors_beta(logits: Tensor, beta: float) -> None:
    student, teacher = logits
    there = generalized_jsd(student, teacher, beta=beta)
    back = generalized_jsd(teacher, student, beta=1 - beta)
    torch.testing.assert_close(there, back, rtol=1e-9, atol=1e-12)


def test_beta_zero_is_the_forward_kl_and_beta_one_the_reverse() -> None:
    student, teacher = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    reverse = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert generalized_jsd(student, teacher, beta=0.0).item() == pytest.approx(forward, rel=1e-5)
    assert generalized_jsd(student, teacher, beta=1.0).item() == pytest.approx(reverse, rel=1e-5)


def test_the_mixture_leans_to_the_teacher_as_beta_grows() -> None:
    """Disjoint certainties: m is (1 − beta, beta), so the divergence is the entropy of beta, whatever the logits."""
    student, teacher = torch.tensor([0.0, -INF]), torch.tensor([-INF, 0.0])
    for beta in (0.1, 0.5, 0.8):
        entropy = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        assert generalized_jsd(student, teacher, beta=beta).item() == pytest.approx(entropy, rel=1e-6)


@pytest.mark.parametrize("beta", BETAS)
def test_gradients_are_those_of_finite_differences(beta: float) -> None:
    torch.manual_seed(1)
    student, teacher = (torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda s, t: generalized_jsd(s, t, beta=beta, temperature=1.3), (student, teacher))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("entry_clip", [None, 0.03])
def test_gradients_are_those_of_the_naive_form(beta: float, entry_clip: float | None) -> None:
    torch.manual_seed(2)
    student, teacher = (2 * torch.randn(40, 9, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    entries = naive_entries(student, teacher, beta)
    if entry_clip is not None:
        inside = (entries >= 0) & (entries <= entry_clip)
        assert 0.05 < inside.double().mean() < 0.95  # the clip decides something here
        entries = entries * inside  # the same gradient; the value plays no part
    actual = gradient(generalized_jsd(student, teacher, beta=beta, entry_clip=entry_clip), student)
    torch.testing.assert_close(actual, gradient(entries, student), rtol=1e-9, atol=1e-12)


def test_the_clip_passes_the_gradient_at_both_ends() -> None:
    """Entries of exactly 0 (tokens 0 and 3), exactly the clip (1), and below 0 (2): only the last is cut off."""
    p_t = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    p_s = torch.tensor([0.5, 0.125, 0.25, 0.125], dtype=torch.float64)
    student = p_s.log().requires_grad_()
    s, t = (torch.log_softmax(x.detach().log(), -1) for x in (p_s, p_t))
    entries = t.exp() * (t - s)
    assert entries[0] == entries[3] == 0
    assert entries[2] < 0
    actual = gradient(generalized_jsd(student, p_t.log(), beta=0.0, entry_clip=entries[1].item()), student)
    by_logprob = -p_t * torch.tensor([1, 1, 0, 1])
    torch.testing.assert_close(actual, by_logprob - p_s * by_logprob.sum(), rtol=1e-12, atol=1e-15)


def test_the_entry_clip_comes_before_the_sum_and_the_token_clip_after() -> None:
    student, teacher = torch.zeros(4, dtype=torch.float64), torch.tensor([5.0, 5.0, 0.0, 0.0], dtype=torch.float64)
    free = generalized_jsd(student, teacher, beta=0.0).item()
    assert free > 0.5
    assert generalized_jsd(student, teacher, beta=0.0, entry_clip=0.05).item() == pytest.approx(2 * 0.05)
    assert generalized_jsd(student, teacher, beta=0.0, token_clip=0.05).item() == pytest.approx(0.05)
    assert generalized_jsd(student, teacher, beta=0.0, entry_clip=0.05, token_clip=0.07).item() == pytest.approx(0.07)
    assert generalized_jsd(student, teacher, beta=0.0, token_clip=2.0).item() == pytest.approx(free)


def test_a_token_over_its_cap_gets_no_gradient_and_the_others_keep_theirs() -> None:
    student = torch.tensor([[0.0, 0.0], [0.0, 0.5]], requires_grad=True)
    teacher = torch.tensor([[9.0, 0.0], [0.0, 0.0]])
    capped = gradient(generalized_jsd(student, teacher, beta=0.0, token_clip=0.1), student)
    free = gradient(generalized_jsd(student, teacher, beta=0.0), student)
    assert capped[0].tolist() == [0.0, 0.0]
    assert capped[1].tolist() == free[1].tolist() != [0.0, 0.0]


@pytest.mark.parametrize("wide", ["student", "teacher"])
@pytest.mark.parametrize("padding", [50.0, INF, math.nan])
def test_rows_beyond_the_smaller_vocabulary_are_cut_before_the_softmax(wide: str, padding: float) -> None:
    torch.manual_seed(3)
    logits = {side: torch.randn(2, 3, 7, dtype=torch.float64) for side in ("student", "teacher")}
    expected = generalized_jsd(logits["student"], logits["teacher"], beta=0.4)
    logits[wide] = torch.nn.functional.pad(logits[wide], (0, 5), value=padding)
    torch.testing.assert_close(generalized_jsd(logits["student"], logits["teacher"], beta=0.4), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("beta", BETAS)
def test_half_precision_logits_are_computed_in_fp32(dtype: torch.dtype, beta: float) -> None:
    torch.manual_seed(4)
    student, teacher = (3 * torch.randn(2, 3000).to(dtype) for _ in range(2))
    out = generalized_jsd(student, teacher, beta=beta)
    assert out.dtype == torch.float32
    expected = generalized_jsd(student.double(), teacher.double(), beta=beta)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


RULED_OUT = {  # student, teacher
    "teacher": ([0.3, -0.2, 1.0, 0.1], [0.5, -INF, 0.2, -INF]),
    "student": ([0.3, -INF, 1.0, 0.1], [0.5, 0.4, 0.2, 1.0]),
    "both": ([0.3, -INF, 1.0, -INF], [0.5, -INF, 0.2, -INF]),
    "each its own": ([0.3, -INF, 1.0, 0.1], [-INF, 0.4, 0.2, 1.0]),
    "certain of different tokens": ([0.0, -INF, -INF, -INF], [-INF, 0.0, -INF, -INF]),
}


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("entry_clip", [None, 0.05])
@pytest.mark.parametrize("who", RULED_OUT)
def test_a_logit_of_minus_infinity_gets_its_limit_and_never_nan(who: str, entry_clip: float | None, beta: float) -> None:
    student, teacher = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in RULED_OUT[who])
    out = generalized_jsd(student, teacher, beta=beta, entry_clip=entry_clip)
    assert out.item() == pytest.approx(plain_jsd(*RULED_OUT[who], beta, entry_clip=entry_clip), rel=1e-9)
    for side in torch.autograd.grad(out, (student, teacher)):
        assert side.isfinite().all()


@pytest.mark.parametrize("beta", BETAS)
def test_a_token_cap_makes_an_infinite_divergence_finite(beta: float) -> None:
    student = torch.tensor([0.0, -INF], requires_grad=True)
    out = generalized_jsd(student, torch.tensor([-INF, 0.0]), beta=beta, token_clip=0.2)
    assert out.item() == pytest.approx(0.2)
    assert gradient(out, student).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("beta", BETAS)
def test_nan_logits_are_not_hidden(beta: float) -> None:
    bad, good = torch.tensor([0.0, math.nan, 1.0]), torch.tensor([0.0, -INF, 1.0])
    for pair in ((bad, good), (good, bad)):
        assert generalized_jsd(*pair, beta=beta, entry_clip=0.05).isnan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": -0.1}, r"beta must lie in \[0, 1\].*got -0.1"),
        ({"beta": 1.1}, r"beta must lie in \[0, 1\].*got 1.1"),
        ({"temperature": 0.0}, r"temperature must be positive.*got 0.0"),
        ({"entry_clip": 0.0}, r"entry_clip must be positive.*got 0.0"),
        ({"token_clip": -1.0}, r"token_clip must be positive.*got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generalized_jsd(torch.zeros(2), torch.zeros(2), **{"beta": 0.0, **change})


def test_leading_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student \(2, 5\), teacher \(1, 5\)"):
        generalized_jsd(torch.zeros(2, 5), torch.zeros(1, 5), beta=0.0)


# --- over the teacher's top K ---


def all_of(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


@for_all
@given(logit_pairs(least=2), st.data(), st.booleans(), st.none() | st.floats(0.001, 0.3))
def test_top_k_agrees_with_a_sum_entry_by_entry(
    logits: Tensor, data: st.DataObject, tail: bool, entry_clip: float | None
) -> None:
    V = logits.shape[1]
    kept = sorted(data.draw(st.sets(st.integers(0, V - 1), min_size=1)))
    student, teacher = torch.log_softmax(logits, -1)
    support = torch.zeros(V, dtype=torch.bool)
    support[kept] = True
    out = top_k_forward_kl(student, teacher, support, tail=tail, entry_clip=entry_clip).item()
    p_s, p_t = (plain_probabilities(x) for x in logits.tolist())
    expected = plain_top_k([p_s[i] for i in kept], [p_t[i] for i in kept], tail, entry_clip)
    assert out == pytest.approx(expected, rel=1e-6, abs=1e-8)


@for_all
@given(logit_pairs(), st.booleans(), st.none() | st.floats(0.001, 0.3), st.randoms())
def test_with_the_whole_vocabulary_top_k_is_the_exact_forward_kl(
    logits: Tensor, tail: bool, entry_clip: float | None, random: Any
) -> None:
    order = random.sample(range(logits.shape[1]), logits.shape[1])
    student, teacher = torch.log_softmax(logits, -1)[:, order]
    out = top_k_forward_kl(student, teacher, all_of(student), tail=tail, entry_clip=entry_clip)
    exact = generalized_jsd(*logits, beta=0.0, entry_clip=entry_clip)
    torch.testing.assert_close(out, exact, rtol=1e-9, atol=1e-12)


@for_all
@given(logit_pairs(least=2))
def test_with_a_tail_a_wider_support_never_sees_less_and_never_more_than_the_exact_kl(logits: Tensor) -> None:
    """Data processing: merging tokens into a tail cannot raise the divergence.

    The teacher's floor moves it by no more than 1e-7 · log 1e7. The student's, where it binds, lowers what is seen without
    limit: from there on the order of two supports says nothing, but the exact divergence stays an upper bound.
    """
    student, teacher = torch.log_softmax(logits, -1)
    ranked = teacher.argsort(descending=True)
    seen = [0.0]
    for K in range(1, len(ranked) + 1):
        s, t = student[ranked[:K]], teacher[ranked[:K]]
        seen.append(top_k_forward_kl(s, t, all_of(s)).item())
        assert seen[-1] >= seen[-2] - 2e-6 or 1 - s.exp().sum() < 1e-7
    exact = generalized_jsd(student, teacher, beta=0.0).item()
    assert max(seen) <= exact + 2e-6
    assert seen[-1] == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("entry_clip", [None, 0.05])
def test_top_k_gradients_are_those_of_the_naive_form(tail: bool, entry_clip: float | None) -> None:
    torch.manual_seed(5)
    logits = 2 * torch.randn(30, 9, dtype=torch.float64, requires_grad=True)
    teacher = torch.softmax(2 * torch.randn(30, 9, dtype=torch.float64), -1)
    K = 4
    s, t = torch.softmax(logits, -1)[:, :K], teacher[:, :K]
    if tail:
        s, t = (torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1) for p in (s, t))
    else:
        s, t = (p / p.sum(-1, keepdim=True) for p in (s, t))
    entries = t * torch.log(t / s)
    if entry_clip is not None:
        inside = (entries >= 0) & (entries <= entry_clip)
        assert 0.05 < inside.double().mean() < 0.95
        assert not tail or 0 < inside[:, -1].double().mean() < 1  # the tail is cut like any other
        entries = entries * inside
    logprobs = torch.log_softmax(logits, -1)[:, :K]
    actual = gradient(top_k_forward_kl(logprobs, t[:, :K].log(), all_of(logprobs), tail=tail, entry_clip=entry_clip), logits)
    torch.testing.assert_close(actual, gradient(entries, logits), rtol=1e-8, atol=1e-10)


@for_all
@given(logit_pairs(least=2), st.booleans(), st.sampled_from([0.0, -INF, INF, math.nan]))
def test_a_column_outside_the_support_is_never_read(logits: Tensor, tail: bool, garbage: float) -> None:
    student, teacher = torch.log_softmax(logits, -1)[:, 1:]
    clean = student.clone().requires_grad_()
    value = top_k_forward_kl(clean, teacher, all_of(teacher), tail=tail)
    dirty = torch.cat([torch.tensor([garbage]).double(), student]).requires_grad_()
    teacher = torch.cat([torch.tensor([garbage]).double(), teacher])
    support = torch.arange(len(dirty)) > 0
    other = top_k_forward_kl(dirty, teacher, support, tail=tail)
    torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-6)  # a small tail magnifies rounding
    pull = gradient(other, dirty)
    assert pull[0] == 0
    torch.testing.assert_close(pull[1:], gradient(value, clean), rtol=1e-6, atol=1e-6)


def test_the_tail_is_at_least_1e_7_on_both_sides() -> None:
    certain, half = torch.tensor([0.0, -INF]), torch.tensor([math.log(0.25), math.log(0.25)])
    teacher_certain = top_k_forward_kl(half, certain, all_of(half)).item()
    assert teacher_certain == pytest.approx(math.log(1 / 0.25) + 1e-7 * math.log(1e-7 / 0.5), abs=3e-7)
    student, teacher = torch.tensor([0.0]), torch.tensor([math.log(0.25)])
    expected = 0.25 * math.log(0.25) + 0.75 * math.log(0.75 / 1e-7)
    assert top_k_forward_kl(student, teacher, all_of(student)).item() == pytest.approx(expected, rel=1e-6)


def test_a_tail_just_above_the_floor_keeps_its_digits_in_fp32() -> None:
    student, teacher = torch.tensor([-3e-7]), torch.tensor([math.log(0.25)])
    expected = 0.25 * (math.log(0.25) + 3e-7) + 0.75 * math.log(0.75 / 3e-7)
    assert top_k_forward_kl(student, teacher, all_of(student)).item() == pytest.approx(expected, rel=1e-6)


def test_probabilities_that_round_to_more_than_one_leave_the_floor() -> None:
    over = torch.tensor([math.log(0.6), math.log(0.4001)], requires_grad=True)
    out = top_k_forward_kl(over, over.detach(), all_of(over))
    assert out.item() == 0
    assert gradient(out, over).isfinite().all()


CERTAIN = {"exactly": -INF, "nearly": -1e4, "in fp32": -104.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("entry_clip", [None, 0.05])
@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("rest", CERTAIN.values(), ids=CERTAIN)
@pytest.mark.parametrize("student_on", ["the same", "another of the K", "none of the K"])
def test_certain_teachers_and_students_leave_finite_gradients(
    student_on: str, rest: float, tail: bool, entry_clip: float | None, dtype: torch.dtype
) -> None:
    logits = torch.full((6,), rest, dtype=dtype)
    logits[{"the same": 0, "another of the K": 1, "none of the K": 5}[student_on]] = 0.0
    logits.requires_grad_()
    teacher = torch.tensor([0.0, rest, rest, rest], dtype=dtype)
    student = torch.log_softmax(logits, -1)[:4]
    out = top_k_forward_kl(student, teacher, all_of(teacher), tail=tail, entry_clip=entry_clip)
    assert not out.isnan()
    assert gradient(out, logits).isfinite().all()
    no_distance = student_on == "the same" or (not tail and student_on == "none of the K" and rest > -INF)
    if not no_distance:  # (renormalised, a student without mass on the support keeps only its proportions there)
        assert out.item() >= (entry_clip or 50.0) - 1e-9


def test_a_pull_towards_a_certain_teacher_is_the_exact_one() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([0.0, -INF], dtype=torch.float64)
    student = torch.log_softmax(logits, -1)[:2]
    pull = gradient(top_k_forward_kl(student, teacher, all_of(teacher)), logits)
    exact = torch.softmax(logits.detach(), -1) - torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(pull, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tail", [True, False])
def test_an_empty_support_is_no_distance(tail: bool) -> None:
    student = torch.full((2, 3), math.nan, requires_grad=True)
    out = top_k_forward_kl(student, torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), tail=tail)
    assert out.tolist() == [0.0, 0.0]
    assert (gradient(out, student) == 0).all()


def test_the_tail_entry_is_clipped_like_any_other() -> None:
    student, teacher = torch.tensor([math.log(0.9)]), torch.tensor([math.log(0.1)])  # the tail's entry: 0.9 log 9
    assert top_k_forward_kl(student, teacher, all_of(student), entry_clip=0.05).item() == pytest.approx(0.05)
    assert top_k_forward_kl(teacher, student, all_of(student), entry_clip=0.05).item() == pytest.approx(0.05)
    assert top_k_forward_kl(student, teacher, all_of(student), token_clip=0.3).item() == pytest.approx(0.3)


def test_half_precision_top_k_is_computed_in_fp32() -> None:
    student, teacher = (torch.log_softmax(torch.randn(8, 5), -1).bfloat16() for _ in range(2))
    out = top_k_forward_kl(student, teacher, all_of(student))
    expected = top_k_forward_kl(student.float(), teacher.float(), all_of(student))
    assert out.dtype == torch.float32
    assert out.tolist() == expected.tolist()


@for_all
@given(st.lists(st.integers(0, 8), min_size=1, max_size=6, unique=True), st.integers(0, 8), st.booleans())
@pytest.mark.slow
def test_the_support_holds_no_token_twice(top: list[int], sampled: int, tail: bool) -> None:
    ids = torch.tensor([[sampled, *top], [top[0], *top]])
    first, second = top_k_support(ids, tail=tail).tolist()
    kept = [token for token, yes in zip(ids[0].tolist(), first, strict=True) if yes]
    assert sorted(kept) == sorted({*top, sampled} if tail else top)
    assert second == [False] + [True] * len(top)


def test_top_k_bounds_and_shapes_that_make_no_sense_are_refused() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"must have one shape, got \[\(2, 3\), \(2, 3\), \(3,\)\]"):
        top_k_forward_kl(x, x, all_of(x)[0])
    with pytest.raises(ValueError, match=r"entry_clip must be positive"):
        top_k_forward_kl(x, x, all_of(x), entry_clip=-0.05)
