"""The sample weights against recorded vectors, a plain-Python recomputation, and the properties that define them."""

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

from renio_pipeline.weighting import effective_sample_size, log_ratio, pivotal_mask, pivotal_weights

VECTORS = json.loads((Path(__file__).parent / "vectors" / "weights.json").read_text())
for_all = settings(deadline=None, derandomize=True)
MODES = ["batch_mean", "clamp", "ema", "none"]

logprob = st.floats(-9.0, 0.0)
padding = st.sampled_from([math.nan, math.inf, -math.inf, -3.0])


@st.composite
def batches(draw: st.DrawFn, least: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """student, teacher, mask [B, T] in float64; empty batches, no tokens and empty responses included."""
    B, T = draw(st.integers(least, 6)), draw(st.integers(0, 7))
    lengths = draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    values = draw(st.lists(logprob, min_size=2 * B * T, max_size=2 * B * T))
    student, teacher = torch.tensor(values, dtype=torch.float64).reshape(2, B, T)
    return student, teacher, torch.arange(T)[None, :] < torch.tensor(lengths, dtype=torch.int64)[:, None]


@st.composite
def weight_settings(draw: st.DrawFn) -> dict[str, Any]:
    threshold = draw(st.floats(-0.5, 2.0))
    return {
        "threshold": threshold,
        "clip": threshold + draw(st.floats(0.01, 3.0)),
        "temperature": draw(st.sampled_from([0.3, 1.0, 2.0])),
    }


def plain_raw(student: Tensor, teacher: Tensor, mask: Tensor, s: dict[str, Any]) -> tuple[list[float], list[int]]:
    """Raw weights and pivotal counts, a token at a time."""
    raw, counts = [], []
    for row_s, row_t, row_m in zip(student.tolist(), teacher.tolist(), mask.tolist(), strict=True):
        ratios = [min(a - b, s["clip"]) for a, b, real in zip(row_s, row_t, row_m, strict=True) if real]
        pivotal = [r for r in ratios if r >= s["threshold"]]
        raw.append(math.exp(math.fsum(pivotal) / len(pivotal) / s["temperature"]) if pivotal else 1.0)
        counts.append(len(pivotal))
    return raw, counts


def plain_weights(raw: list[float], mode: str, size: int | None, state: float | None) -> tuple[list[float], Any]:
    if mode == "none" or not raw:
        return raw, state
    if mode == "ema":
        mean = math.fsum(raw) / len(raw)
        state = mean if state is None else 0.9 * state + 0.1 * mean
        return [w / state for w in raw], state
    weights = []
    for start in range(0, len(raw), size or len(raw)):
        group = raw[start : start + (size or len(raw))]
        if mode == "clamp":
            group = [max(0.1, min(10.0, w)) for w in group]
        mean = math.fsum(group) / len(group)
        weights += [w / mean if mode == "clamp" else min(w / mean, 10.0) for w in group]
    return weights, state


def close(actual: Tensor, expected: Any, tolerance: float = 1e-10) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: "{normalization}-{clip}".format(**case["settings"]))
def test_matches_the_recorded_vectors(case: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    student = torch.tensor(case["student_logprobs"], dtype=dtype)
    teacher = torch.tensor(case["teacher_logprobs"], dtype=dtype)
    mask = torch.arange(student.shape[1])[None, :] < torch.tensor(case["lengths"])[:, None]
    before, after = case["running_mean_before"], case["running_mean_after"]
    out = pivotal_weights(student, teacher, mask, running_mean=before, **case["settings"])
    assert out.weights.dtype == out.raw.dtype == dtype
    close(out.weights, case["weights"], tolerance)
    close(out.raw, case["raw"], tolerance)
    assert out.pivotal_count.tolist() == case["pivotal_count"]
    assert out.pivotal_count.dtype == torch.int64
    assert out.running_mean == (after and pytest.approx(after, rel=tolerance))


@for_all
@given(batches(), weight_settings(), st.sampled_from(MODES), st.none() | st.integers(1, 8), st.none() | st.floats(0.5, 3))
def test_agrees_with_a_recomputation_token_by_token(
    batch: tuple[Tensor, Tensor, Tensor], s: dict[str, Any], mode: str, size: int | None, state: float | None
) -> None:
    out = pivotal_weights(*batch, normalization=mode, group_size=size, running_mean=state, **s)
    raw, counts = plain_raw(*batch, s)
    weights, state = plain_weights(raw, mode, size, state)
    close(out.raw, raw)
    close(out.weights, weights)
    assert out.pivotal_count.tolist() == counts
    assert out.running_mean == (state and pytest.approx(state))


@for_all
@given(batches(least=1), weight_settings())
def test_batch_mean_weights_average_one_where_the_cap_cannot_bind(
    batch: tuple[Tensor, Tensor, Tensor], s: dict[str, Any]
) -> None:
    assume(s["clip"] / s["temperature"] <= math.log(10) and s["threshold"] >= 0)
    close(pivotal_weights(*batch, **s).weights.mean(), 1.0)


@pytest.mark.parametrize(("mode", "heaviest"), [("batch_mean", 10.0), ("clamp", 10 / (29 / 20))])
def test_an_outlier_is_capped_at_ten(mode: str, heaviest: float) -> None:
    student, teacher = torch.zeros(20, 1), torch.zeros(20, 1)
    teacher[3] = -5.0  # raw exp(5) among nineteen of 1
    weights = pivotal_weights(student, teacher, torch.ones(20, 1), threshold=1.0, clip=6.0, normalization=mode).weights
    close(weights.max(), heaviest, 1e-6)
    assert weights.argmax() == 3


def test_clamp_bounds_the_raw_weights_and_not_the_weights() -> None:
    student, teacher = torch.zeros(20, 1), torch.full((20, 1), 4.0)
    teacher[3] = -5.0  # raw exp(5), clamped to 10, among nineteen of exp(-4), clamped to 0.1
    weights = pivotal_weights(student, teacher, torch.ones(20, 1), threshold=-6.0, clip=6.0, normalization="clamp").weights
    mean = (10 + 19 * 0.1) / 20
    close(weights, [10 / mean if b == 3 else 0.1 / mean for b in range(20)], 1e-6)


@for_all
@given(batches(least=1), weight_settings(), st.sampled_from(MODES), st.randoms())
@pytest.mark.slow
def test_the_order_of_the_batch_and_of_tokens_does_not_matter(
    batch: tuple[Tensor, Tensor, Tensor], s: dict[str, Any], mode: str, random: Any
) -> None:
    B, T = batch[0].shape
    rows, columns = random.sample(range(B), B), random.sample(range(T), T)
    straight = pivotal_weights(*batch, normalization=mode, **s)
    shuffled = pivotal_weights(*[x[rows][:, columns] for x in batch], normalization=mode, **s)
    close(shuffled.weights, straight.weights[rows])


@for_all
@given(batches(), weight_settings(), st.sampled_from(MODES), st.integers(1, 4), st.tuples(padding, padding))
def test_what_stands_in_the_padding_is_never_read(
    batch: tuple[Tensor, Tensor, Tensor], s: dict[str, Any], mode: str, width: int, garbage: tuple[float, float]
) -> None:
    student, teacher, mask = (torch.nn.functional.pad(x, (0, width)) for x in batch)
    padded = pivotal_weights(
        student.masked_fill(~mask, garbage[0]), teacher.masked_fill(~mask, garbage[1]), mask, normalization=mode, **s
    )
    plain = pivotal_weights(*batch, normalization=mode, **s)
    close(padded.weights, plain.weights)
    assert padded.pivotal_count.tolist() == plain.pivotal_count.tolist()


@for_all
@given(batches(least=1), weight_settings(), st.floats(0.0, 4.0), st.data())
def test_raising_a_pivotal_ratio_never_lowers_the_raw_weight(
    batch: tuple[Tensor, Tensor, Tensor], s: dict[str, Any], rise: float, data: st.DataObject
) -> None:
    student, teacher, mask = batch
    candidates = pivotal_mask(*batch, threshold=s["threshold"]).nonzero().tolist()
    assume(candidates)
    b, t = data.draw(st.sampled_from(candidates))
    raised = teacher.clone()
    raised[b, t] -= rise
    before, after = (pivotal_weights(student, x, mask, **s) for x in (teacher, raised))
    assert after.raw[b] >= before.raw[b] - 1e-12
    others = torch.arange(len(mask)) != b
    assert after.raw[others].tolist() == before.raw[others].tolist()


@for_all
@given(batches(least=1), weight_settings(), st.sampled_from(["batch_mean", "clamp"]), st.integers(1, 4))
def test_group_size_reproduces_normalising_each_shard_alone(
    batch: tuple[Tensor, Tensor, Tensor], s: dict[str, Any], mode: str, size: int
) -> None:
    shards = zip(*[torch.split(x, size) for x in batch], strict=True)
    alone = torch.cat([pivotal_weights(*shard, normalization=mode, **s).weights for shard in shards])
    close(pivotal_weights(*batch, normalization=mode, group_size=size, **s).weights, alone)


def test_micro_batches_of_one_lose_the_weights_and_the_whole_batch_keeps_them() -> None:
    student, teacher, mask = torch.zeros(2, 1), torch.tensor([[-2.0], [0.0]]), torch.ones(2, 1)
    assert pivotal_weights(student, teacher, mask, threshold=1, clip=3, group_size=1).weights.tolist() == [1.0, 1.0]
    heavy, light = pivotal_weights(student, teacher, mask, threshold=1, clip=3).weights.tolist()
    assert heavy / light == pytest.approx(math.exp(2))


@pytest.mark.parametrize("mode", MODES)
def test_weights_carry_no_gradient(mode: str) -> None:
    student, teacher = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    out = pivotal_weights(student, teacher, torch.ones(3, 4), threshold=0.1, clip=2.0, normalization=mode)
    assert not out.weights.requires_grad
    assert not out.raw.requires_grad


def test_a_ratio_at_the_threshold_is_pivotal_and_one_just_below_is_not() -> None:
    student = torch.tensor([[-0.5, -0.5 - 1e-6]])
    out = pivotal_weights(student, torch.full((1, 2), -1.0), torch.ones(1, 2), threshold=0.5, clip=2.0)
    assert out.pivotal_count.tolist() == [1]
    close(out.raw, [math.exp(0.5)], 1e-6)


def test_a_token_that_the_teacher_rules_out_counts_at_the_clip() -> None:
    teacher = torch.tensor([[-math.inf, -1.0]])
    out = pivotal_weights(torch.full((1, 2), -1.0), teacher, torch.ones(1, 2), threshold=1.0, clip=2.0)
    close(out.raw, [math.exp(2.0)], 1e-6)


def test_the_ratio_is_clipped_from_above_only() -> None:
    student, teacher = torch.tensor([[-9.0, 0.0]]), torch.tensor([[-1.0, -9.0]])
    out = pivotal_weights(student, teacher, torch.ones(1, 2), threshold=-20.0, clip=3.0, normalization="none")
    close(out.weights, [math.exp((-8 + 3) / 2)], 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    student, teacher = -torch.rand(4, 50).to(dtype), -3 * torch.rand(4, 50).to(dtype)
    half, single = (
        pivotal_weights(x, y, torch.ones(4, 50), threshold=0.3, clip=2.0)
        for x, y in [(student, teacher), (student.float(), teacher.float())]
    )
    assert half.weights.dtype == torch.float32
    assert half.weights.tolist() == single.weights.tolist()


def test_ema_moves_before_it_is_used_and_an_empty_batch_leaves_it() -> None:
    def step(ratio: float, state: float | None, B: int = 2) -> Any:
        z = torch.zeros(B, 1, dtype=torch.float64)
        out = pivotal_weights(z, z - ratio, z + 1, threshold=0.1, clip=3.0, normalization="ema", running_mean=state)
        return out.weights.tolist(), out.running_mean

    weights, first = step(math.log(2), None)
    assert (weights, first) == (pytest.approx([1.0, 1.0]), pytest.approx(2.0))
    weights, second = step(math.log(4), first)
    assert (weights, second) == (pytest.approx([4 / 2.2, 4 / 2.2]), pytest.approx(2.2))
    assert step(1.0, second, B=0) == ([], second)
    assert step(1.0, None, B=0) == ([], None)


@for_all
@given(batches(), weight_settings())
def test_the_pivotal_mask_is_what_the_weights_count(batch: tuple[Tensor, Tensor, Tensor], s: dict[str, Any]) -> None:
    mask = pivotal_mask(*batch, threshold=s["threshold"])
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == pivotal_weights(*batch, **s).pivotal_count.tolist()
    assert not (mask & ~batch[2]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": 0.5}, r"clip must be above threshold, got clip 0.5 and threshold 1.0.*no token"),
        ({"clip": 1.0}, r"clip must be above threshold, got clip 1.0"),
        ({"clip": math.nan}, r"clip must be above threshold"),
        ({"temperature": 0.0}, r"temperature must be positive.*got 0.0"),
        ({"temperature": -1.0}, r"temperature must be positive.*got -1.0"),
        ({"group_size": 0}, r"group_size must be a positive.*got 0"),
        ({"group_size": -2}, r"group_size must be a positive.*got -2"),
        ({"normalization": "mean"}, r"one of batch_mean, clamp, ema, none, got 'mean'"),
        ({"temperature": 0.01}, r"weights overflow.*raise temperature"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_reason(change: dict[str, Any], message: str) -> None:
    student, teacher = torch.zeros(2, 3), torch.full((2, 3), -2.0)
    with pytest.raises(ValueError, match=message):
        pivotal_weights(student, teacher, torch.ones(2, 3), **{"threshold": 1.0, "clip": 2.0, **change})


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4), (2, 3)), ((2, 3), (2, 3), (2,)), ((3,), (3,), (3,))])
def test_shapes_that_differ_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"must all be \[B, T\]"):
        pivotal_weights(*[torch.zeros(shape) for shape in shapes], threshold=1.0, clip=2.0)


@pytest.mark.parametrize("value", [math.nan, -math.inf])  # -inf on both sides: a difference of NaN
def test_nan_on_a_response_token_is_refused_and_names_the_row(value: float) -> None:
    student, teacher = torch.zeros(3, 2), torch.zeros(3, 2)
    student[1, 1] = teacher[1, 1] = value
    with pytest.raises(ValueError, match=r"NaN.*rows \[1\]"):
        pivotal_weights(student, teacher, torch.ones(3, 2), threshold=1.0, clip=2.0)
    assert log_ratio(student, teacher, torch.tensor([[1, 1], [1, 0], [1, 1]])).tolist() == [[0.0, 0.0]] * 3


def test_effective_sample_size_of_known_weights() -> None:
    assert effective_sample_size(torch.tensor([2.0, 2.0, 2.0])) == pytest.approx(3.0)
    assert effective_sample_size(torch.tensor([3.0, 1.0])) == pytest.approx(1.6)
    assert effective_sample_size(torch.tensor([0.5, 0.0, 0.0])) == pytest.approx(1.0)
    assert effective_sample_size(torch.full((4,), 1e30)) == pytest.approx(4.0)  # its square is beyond fp32
    assert effective_sample_size(torch.tensor([])) == 0.0
    assert effective_sample_size(torch.zeros(3)) == 0.0
