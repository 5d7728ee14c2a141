"""Weightings on a step's batch: what they see, what they return, what they remember; and the diagnostics beside them."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from renio_pipeline.config import variants
from renio_pipeline.config.schema import Pivotal
from renio_pipeline.weightings import REGISTRY, ScoredBatch, State, Weighting, Weights
from renio_pipeline.weightings.renio import Renio
from renio_pipeline.weightings.step import Weighed, weigh_step
from renio_pipeline.weightings.uniform import Uniform

DEFAULTS = Pivotal()


def batch_of(student: Sequence[Sequence[float]], teacher: Sequence[Sequence[float]]) -> ScoredBatch:
    rows = [[np.array(row, np.float32) for row in side] for side in (student, teacher)]
    return ScoredBatch(
        sample_ids=[10 + i for i in range(len(student))],
        row_ids=[f"row {i // 2}" for i in range(len(student))],
        token_ids=[np.arange(len(row), dtype=np.int32) for row in student],
        student_logprobs=rows[0],
        teacher_logprobs=rows[1],
        verdicts=["correct", "incorrect", None][: len(student)],
    )


BATCH = batch_of([[-1, -1, -1], [-1], []], [[-3, -1, -2], [-9], []])


def weigh(weighting: Weighting, batch: ScoredBatch = BATCH, state: State = None, pivotal: Pivotal = DEFAULTS) -> Weighed:
    return weigh_step(weighting, pivotal, batch, state)


def test_every_registered_weighting_is_a_section_of_its_type() -> None:
    found = variants.registered("weighting")
    assert list(found) == list(REGISTRY)
    assert all(issubclass(cls, Weighting) and cls().type == name for name, cls in found.items())
    assert all(field.description for cls in found.values() for key, field in cls.model_fields.items() if key != "type")


def test_padding_is_not_part_of_the_weights() -> None:
    found = weigh(Renio(threshold=0.8, clip=2.5))
    raw = [math.exp((2 + 1) / 2), math.exp(2.5), 1.0]
    assert found.raw.tolist() == pytest.approx(raw, rel=1e-6)
    assert found.weights.tolist() == pytest.approx([value / (math.fsum(raw) / 3) for value in raw], rel=1e-6)
    assert [p.tolist() for p in found.pivotal] == [[0, 2], [0], []]
    assert found.metrics["pivotal/fraction"] == 3 / 4
    assert found.metrics["ratio/mean"] == pytest.approx((2 + 0 + 1 + 8) / 4)
    assert found.token_factors is None


def test_uniform_weights_are_one_whatever_the_diagnostics_say() -> None:
    found = weigh(Uniform(), pivotal=Pivotal(threshold=1.5, clip=3.0))
    assert found.weights.tolist() == [1.0, 1.0, 1.0]
    assert found.state is None
    assert [p.tolist() for p in found.pivotal] == [[0], [0], []]
    assert found.raw.tolist() == pytest.approx([math.exp(2), math.exp(3), 1.0], rel=1e-6)


def test_the_diagnostics_do_not_change_the_weights() -> None:
    renio = Renio(threshold=0.8, clip=2.5)
    here, there = (weigh(renio, pivotal=pivotal) for pivotal in (DEFAULTS, Pivotal(threshold=1.5, clip=3.0)))
    assert here.weights.tolist() == there.weights.tolist()
    assert here.raw.tolist() != there.raw.tolist()


@pytest.mark.parametrize("weighting", [Renio(), Uniform()], ids=["renio", "uniform"])
def test_a_batch_of_empty_responses_weighs_the_same(weighting: Weighting) -> None:
    found = weigh(weighting, batch_of([[], []], [[], []]))
    assert found.weights.tolist() == [1.0, 1.0]
    assert found.metrics["pivotal/fraction"] == found.metrics["ratio/mean"] == 0


def test_the_running_mean_of_ema_is_a_state_that_goes_from_step_to_step() -> None:
    ema, state = Renio(normalization="ema", threshold=0.1, clip=3.0), None
    for ratio in (1.0, 2.0, 0.5):
        state = weigh(ema, batch_of([[-1.0]], [[-1.0 - ratio]]), state).state
    expected = 0.9 * (0.9 * math.e + 0.1 * math.e**2) + 0.1 * math.e**0.5
    assert state == {"running_mean": pytest.approx(expected, rel=1e-5)}
    assert weigh(Renio(), state=None).state is None


class Sees(Weighting):
    """Returns what it is told to."""

    type: str = "Sees"
    result: Any = None

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        assert (batch.sample_ids, batch.row_ids) == ([10, 11, 12], ["row 0", "row 0", "row 1"])
        assert batch.verdicts == ["correct", "incorrect", None]
        assert batch.lengths.tolist() == [3, 1, 0]
        assert [ids.tolist() for ids in batch.token_ids] == [[0, 1, 2], [0], []]
        return self.result


ONES = np.ones(3)


def test_token_factors_and_state_are_passed_on() -> None:
    factors = [np.array([1, 0, 0.5]), np.array([2.0]), np.array([])]
    found = weigh(Sees(result=Weights(weights=[1, 2, 0], token_factors=factors, state={"steps": (1, 2)})))  # type: ignore[arg-type]
    assert found.weights.dtype == np.float32
    assert found.weights.tolist() == [1, 2, 0]
    assert found.token_factors is not None
    assert [(f.dtype, f.tolist()) for f in found.token_factors] == [(np.float32, f.tolist()) for f in factors]
    assert found.state == {"steps": [1, 2]}, "the state must be what a checkpoint gives back"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, r"weigh must return a renio_pipeline\.weightings\.Weights, got NoneType"),
        (Weights(weights=np.ones(2)), r"weights must be 3 finite numbers, one a sample, got shape \(2,\)"),
        (Weights(weights=np.array([1, np.nan, 1])), "with values that are not finite"),
        (Weights(weights=np.array(["a", "b", "c"])), "weights must be finite real numbers, got ndarray: Cannot cast"),
        (Weights(weights=ONES * 1j), "weights must be finite real numbers, got ndarray: Cannot cast"),
        (Weights(weights=ONES * 1e300), "with values that are not finite"),
        (
            Weights(weights=torch.ones(3, requires_grad=True)),  # type: ignore[arg-type]
            "weights must be finite real numbers, got Tensor: .*detach",
        ),
        (Weights(weights=ONES, token_factors=1.0), "token_factors must be an array for each of 3 samples, got float"),  # type: ignore[arg-type]
        (Weights(weights=ONES, token_factors=[np.ones(3)]), "token_factors must be an array for each of 3 samples, got 1"),
        (
            Weights(weights=ONES, token_factors=[np.ones(3), np.ones(2), np.ones(0)]),
            r"token_factors of sample 11 must be 1 finite numbers, one a response token, got shape \(2,\)",
        ),
        (
            Weights(weights=ONES, token_factors=[np.array([1, 1, np.inf]), np.ones(1), np.ones(0)]),
            "token_factors of sample 10 .* not finite",
        ),
        (Weights(weights=ONES, state={"x": np.ones(1)}), "its state must be what JSON can hold"),
        (Weights(weights=ONES, state=math.nan), "its state must be what JSON can hold"),
    ],
)
def test_what_a_weighting_returns_is_checked_and_the_weighting_named(result: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^weighting Sees: .*{text}"):
        weigh(Sees(result=result))


def test_a_batch_travels() -> None:
    again = pickle.loads(pickle.dumps(BATCH))
    assert again.sample_ids == BATCH.sample_ids
    assert [p.tolist() for p in weigh(Renio(), again).pivotal] == [[0, 2], [0], []]
