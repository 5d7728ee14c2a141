"""Token factors and weights of every weighting: against an oracle of their definitions, at their limits, and refused values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Pivotal
from renio_pipeline.weightings import REGISTRY, ScoredBatch, Weighting
from renio_pipeline.weightings.adaptive import Adaptive
from renio_pipeline.weightings.confidence_gate import ConfidenceGate
from renio_pipeline.weightings.iw import Iw
from renio_pipeline.weightings.paced import Paced
from renio_pipeline.weightings.renio import Renio
from renio_pipeline.weightings.uniform import Uniform
from tests.unit.conftest import make_config
from tests.unit.weightings import oracle
from tests.unit.weightings.test_weightings import DEFAULTS, batch_of, weigh

for_all = settings(deadline=None, derandomize=True, max_examples=25)
INF = math.inf
logprobs = st.floats(-12, 0, width=32)
tokens = st.lists(st.tuples(logprobs, logprobs | st.just(-INF)), max_size=7)
shares = st.floats(0, 1)


@st.composite
def batches(draw: st.DrawFn) -> ScoredBatch:
    rows = draw(st.lists(tokens, min_size=1, max_size=6))
    batch = batch_of([[s for s, _ in row] for row in rows], [[t for _, t in row] for row in rows])
    verdicts = draw(st.lists(st.sampled_from(["correct", "incorrect", "unfinished", None]), min_size=6, max_size=6))
    return with_verdicts(batch, verdicts[: len(rows)])


def with_verdicts(batch: ScoredBatch, verdicts: Sequence[Any], rows: Sequence[str] | None = None) -> ScoredBatch:
    return ScoredBatch(
        sample_ids=batch.sample_ids,
        row_ids=batch.row_ids if rows is None else rows,
        token_ids=batch.token_ids,
        student_logprobs=batch.student_logprobs,
        teacher_logprobs=batch.teacher_logprobs,
        verdicts=verdicts,
    )


def factors_of(weighting: Weighting, batch: ScoredBatch, pivotal: Pivotal = DEFAULTS) -> list[list[float]]:
    found = weigh(weighting, batch, pivotal=pivotal).token_factors
    assert found is not None
    return [row.tolist() for row in found]


def close(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    assert [x for row in found for x in row] == pytest.approx([x for row in expected for x in row], abs=1e-6)


@for_all
@given(batches(), st.floats(0, 0.99), st.floats(-3, 6))
def test_after_the_first_pivotal_token_the_factor_is_gamma(batch: ScoredBatch, gamma: float, threshold: float) -> None:
    expected = oracle.after_pivotal(batch.student_logprobs, batch.teacher_logprobs, threshold, gamma)
    uniform = factors_of(Uniform(after_pivotal=gamma), batch, Pivotal(threshold=threshold, clip=threshold + 1))
    renio = factors_of(Renio(after_pivotal=gamma, threshold=threshold, clip=threshold + 1), batch)
    close(uniform, expected)
    assert renio == uniform, "renio goes by its own threshold, uniform by that of the diagnostics"


@for_all
@given(batches(), shares, st.sampled_from(["batch_mean", "clamp"]))
def test_strength_lies_between_uniform_and_renio_and_keeps_the_mean(batch: ScoredBatch, strength: float, mode: Any) -> None:
    found = weigh(Renio(strength=strength, normalization=mode, clip=2.0), batch).weights  # no cap of 10 binds: e² < 10
    assert found.min() >= 0
    assert found.mean() == pytest.approx(1, abs=1e-5)
    if mode == "batch_mean":
        expected = oracle.renio(batch.student_logprobs, batch.teacher_logprobs, 0.8, 2.0, strength)
        assert found.tolist() == pytest.approx(expected, rel=1e-5)


@for_all
@given(batches())
def test_the_ends_of_both_keys_are_the_paper_and_plain_distillation_digit_for_digit(batch: ScoredBatch) -> None:
    from renio_pipeline.weighting import pivotal_weights

    paper = pivotal_weights(*batch.padded(), threshold=0.8, clip=2.5).weights
    same = weigh(Renio(strength=1.0, after_pivotal=1.0), batch)
    assert (same.weights.tolist(), same.token_factors) == (paper.tolist(), None)
    none = weigh(Renio(strength=0.0), batch)
    assert none.weights.tolist() == weigh(Uniform(after_pivotal=1), batch).weights.tolist() == [1.0] * len(batch)
    assert weigh(Uniform(after_pivotal=1), batch).token_factors is None
    for off in (Iw(gamma=0), ConfidenceGate(confidence=1)):
        assert weigh(off, batch).token_factors is None


def test_the_running_mean_goes_on_at_strength_zero() -> None:
    batch = batch_of([[-1.0]], [[-3.0]])
    states = [weigh(Renio(normalization="ema", strength=s), batch).state for s in (0.0, 1.0)]
    assert states[0] == states[1] == {"running_mean": pytest.approx(math.e**2)}


def test_a_pivotal_token_keeps_its_loss_wherever_it_stands() -> None:
    none, first, last, empty = [0, 0.5, 0], [1, 0, 2], [0, 0, 3.0], []
    rows = [none, first, last, empty, [INF, 0.0]]
    batch = batch_of([[0.0] * len(r) for r in rows], [[-x for x in r] for r in rows])
    assert factors_of(Uniform(after_pivotal=0), batch) == [[1, 1, 1], [1, 0, 0], [1, 1, 1], [], [1, 0]]
    assert factors_of(Renio(after_pivotal=0.25), batch) == [[1, 1, 1], [1, 0.25, 0.25], [1, 1, 1], [], [1, 0.25]]


@for_all
@given(batches(), st.floats(0, 3))
def test_iw_falls_with_the_accumulated_advantage(batch: ScoredBatch, gamma: float) -> None:
    found = weigh(Iw(gamma=gamma), batch)
    expected = oracle.iw(batch.student_logprobs, batch.teacher_logprobs, gamma)
    close([[1.0] * n for n in batch.lengths] if found.token_factors is None else found.token_factors, expected)
    assert found.weights.tolist() == [1.0] * len(batch)
    for row in found.token_factors or []:
        assert (np.diff(row) <= 1e-6).all()
        assert row.min(initial=1) >= 1
        assert row[:1].tolist() == pytest.approx([1 + gamma] * len(row[:1]), rel=1e-6)


def test_iw_by_hand() -> None:
    rows = [[1, -2, 1], [0, 0], [], [0, INF, 5], [INF, INF], [-1.0]]
    batch = batch_of([[0.0] * len(r) for r in rows], [[-x for x in r] for r in rows])
    expected = [[1.5, 1.375, 1.125], [1.5, 1.5], [], [1.5, 1.5, 1.0], [1.5, 1.25], [1.5]]
    close(factors_of(Iw(), batch), expected)


@for_all
@given(batches(), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_confidence_gate_drops_what_the_student_is_sure_of(batch: ScoredBatch, confidence: float) -> None:
    found = factors_of(ConfidenceGate(confidence=confidence), batch)
    for row, own in zip(found, batch.student_logprobs, strict=True):
        assert row == [0.0 if math.exp(p) > confidence else 1.0 for p in own.tolist()]


def test_a_response_of_sure_tokens_alone_has_no_loss() -> None:
    batch = batch_of([[0.0, -0.001], [-0.5]], [[-9, -9], [-1]])
    assert factors_of(ConfidenceGate(), batch) == [[0, 0], [1]]
    assert weigh(ConfidenceGate(), batch).metrics["weights/token_factor_mean"] == 0.5


@for_all
@given(batches())
def test_paced_weighs_by_the_pass_rate_of_the_prompt(batch: ScoredBatch) -> None:
    found = weigh(Paced(), batch)
    assert found.weights.tolist() == pytest.approx(oracle.paced(batch.row_ids, batch.verdicts), rel=1e-6)
    assert found.token_factors is None


@pytest.mark.parametrize(
    ("rows", "verdicts", "weights"),
    [
        ("aaaa", "ccii", [1, 1, 1, 1]),
        ("aabb", "ciii", [2, 2, 0, 0]),
        ("abab", "cici", [0, 0, 0, 0]),  # a is always solved, b never: nothing to learn from in this step
        ("aaabbb", "ciuccc", [2, 2, 2, 0, 0, 0]),
        ("aabb", "ci..", [1, 1, 1, 1]),
        ("aabb", "ii..", [0, 0, 1, 1]),
        ("ab", "..", [1, 1]),
    ],
)
def test_paced_by_hand(rows: str, verdicts: str, weights: list[float]) -> None:
    names = {"c": "correct", "i": "incorrect", "u": "unfinished", ".": None}
    batch = with_verdicts(batch_of([[-1.0]] * len(rows), [[-1.0]] * len(rows)), [names[v] for v in verdicts], list(rows))
    assert weigh(Paced(), batch).weights.tolist() == weights


def test_a_step_whose_weights_are_all_zero_has_finite_metrics() -> None:
    batch = with_verdicts(batch_of([[-1.0]] * 4, [[-1.0], [-4.0]] * 2), ["correct", "incorrect"] * 2, list("abab"))
    found = weigh(Paced(), batch)
    assert found.metrics["weights/max"] == found.metrics["weights/effective_sample_size"] == 0
    assert "weights/token_factor_mean" not in found.metrics, "undefined where nothing has weight"
    assert all(math.isfinite(value) for value in found.metrics.values())


ALL = [Renio(after_pivotal=0.5), Uniform(after_pivotal=0), Iw(), ConfidenceGate(), Paced(), Adaptive()]
each_weighting = pytest.mark.parametrize("weighting", ALL, ids=lambda w: w.type)


def test_every_registered_weighting_is_tested_here() -> None:
    assert {w.type for w in ALL} == set(REGISTRY)


@each_weighting
@for_all
@given(batch=batches(), seed=st.integers(0, 99))
def test_the_order_of_samples_changes_nothing(weighting: Weighting, batch: ScoredBatch, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(batch))
    fields = ("sample_ids", "row_ids", "token_ids", "student_logprobs", "teacher_logprobs", "verdicts")
    there = ScoredBatch(**{name: [getattr(batch, name)[i] for i in order] for name in fields})
    one, other = weigh(weighting, batch), weigh(weighting, there)
    assert other.weights.tolist() == pytest.approx(one.weights[order].tolist(), rel=1e-5)
    if one.token_factors is not None and other.token_factors is not None:
        assert [row.tolist() for row in other.token_factors] == [one.token_factors[i].tolist() for i in order]


@each_weighting
def test_a_batch_without_tokens_and_one_without_samples_are_weighed(weighting: Weighting) -> None:
    found = weigh(weighting, batch_of([[], []], [[], []]))
    assert len(found.weights) == 2
    assert [row.shape for row in found.token_factors or []] == [(0,)] * len(found.token_factors or [])
    assert found.metrics["pivotal/tokens_after"] == 0


@each_weighting
def test_a_log_ratio_that_is_not_a_number_is_refused(weighting: Weighting) -> None:
    batch = batch_of([[-1.0], [-INF]], [[-1.0], [-INF]])
    with pytest.raises(ValueError, match=r"log p_S − log p_T is NaN on a response token of the sequences in rows \[1\]"):
        weigh(weighting, batch)


def test_metrics_say_what_comes_after_the_first_pivotal_token_and_what_factors_leave() -> None:
    rows = [[0, 1, 0, 2], [0, 0], [3, 0], []]
    batch = batch_of([[0.0] * len(r) for r in rows], [[-float(x) for x in r] for r in rows])
    plain = weigh(Uniform(), batch).metrics
    assert (plain["pivotal/tokens_after"], plain["weights/token_factor_mean"]) == (3 / 8, 1.0)
    dimmed = weigh(Uniform(after_pivotal=0.5), batch).metrics
    assert dimmed["pivotal/tokens_after"] == 3 / 8
    assert dimmed["weights/token_factor_mean"] == pytest.approx((0.75 + 1 + 0.75) / 3)


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make_config(**changes)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["renio", "uniform"])
@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, math.inf, "half"])
def test_a_gamma_outside_0_to_1_is_refused_by_its_key(kind: str, value: Any) -> None:
    assert "weighting.after_pivotal: Input should be" in refusal(weighting={"type": kind, "after_pivotal": value})


@pytest.mark.parametrize(
    ("weighting", "told"),
    [
        ({"type": "renio", "strength": 2}, "weighting.strength: Input should be less than or equal to 1 (given: 2)"),
        ({"type": "renio", "strength": -1}, "weighting.strength: Input should be greater than or equal to 0 (given: -1)"),
        ({"type": "iw", "gamma": -0.5}, "weighting.gamma: Input should be greater than or equal to 0 (given: -0.5)"),
        ({"type": "confidence_gate", "confidence": 0}, "weighting.confidence: Input should be greater than 0 (given: 0)"),
        ({"type": "confidence_gate", "confidence": 99}, "weighting.confidence: Input should be less than or equal to 1"),
        ({"type": "uniform", "strength": 0.5}, "weighting.strength: unknown key; allowed: after_pivotal, type"),
        ({"type": "paced"}, "with samples_per_prompt 1 that is always 0; set samples_per_prompt to 4 or more"),
    ],
)
def test_what_a_weighting_cannot_do_is_refused_by_its_key(weighting: dict[str, Any], told: str) -> None:
    assert told in refusal(weighting=weighting)


def test_paced_and_a_filter_exclude_each_other() -> None:
    changes = {"weighting": {"type": "paced"}, "samples_per_prompt": 4, "batch_size": 8}
    assert make_config(**changes).weighting.type == "paced"
    assert "filter correct keeps one kind alone; set filter=all" in refusal(**changes, filter="correct")
