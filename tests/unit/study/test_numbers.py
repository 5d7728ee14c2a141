"""The study's arithmetic: intervals, claims, scores and lessons."""

from __future__ import annotations

import math
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.metrics.weight_scores import SCORES, WEIGHT, areas, scores
from renio_pipeline.study.lessons import repaired_solution, slipped_step, unborrowed_solution
from renio_pipeline.study.marks import REPAIR
from renio_pipeline.study.statistics import CLAIM_PAIRS, Estimate, estimate, line, paired, t_quantile
from renio_pipeline.tasks.arithmetic import Arithmetic, work
from renio_pipeline.weighting import pivotal_weights

for_all = settings(deadline=None, derandomize=True)
TASK = Arithmetic()
ROWS = TASK.rows("train", 200)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (11, 2.201), (30, 2.042), (1000, 1.962)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(freedom) == pytest.approx(expected, abs=6e-4)


def test_an_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [estimate(list(rng.normal(3.0, 2.0, 6))) for _ in range(2000)]
    assert np.mean([e.low <= 3.0 <= e.high for e in found]) == pytest.approx(0.95, abs=0.015)


def test_a_difference_is_paired_by_seed_and_leaves_out_what_has_no_pair() -> None:
    shared = {seed: 10.0 * seed for seed in range(12)}  # the spread between seeds is far larger than the difference
    found = paired({s: v + 1 + 0.1 * (s % 2) for s, v in shared.items()} | {99: 0.0}, shared | {77: 5.0})
    assert found is not None
    assert found.n == 12
    assert found.mean == pytest.approx(1.05)
    assert found.low > 0.9
    assert paired({1: 0.0}, {2: 0.0}) is None


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=3, max_size=12))
@for_all
def test_a_line_is_the_least_squares_one(points: list[tuple[float, float]]) -> None:
    x, y = np.array(points).T
    found = line(points)
    if np.ptp(x) < 0.1:
        return
    assert found is not None
    design = np.stack([np.ones_like(x), x], axis=1)
    expected, *_ = np.linalg.lstsq(design, y, rcond=None)
    assert [found.intercept, found.slope.mean] == pytest.approx(expected, abs=1e-6)
    freedom = len(points) - 2
    variance = ((y - design @ expected) ** 2).sum() / freedom * np.linalg.inv(design.T @ design)[1, 1]
    assert found.slope.high - found.slope.low == pytest.approx(2 * t_quantile(freedom) * math.sqrt(variance), abs=1e-5)


def test_two_points_have_a_line_without_an_interval_and_one_has_none() -> None:
    found = line([(0.0, 1.0), (2.0, 5.0)])
    assert found is not None
    assert (found.slope.mean, found.at(3.0)) == (2.0, 7.0)
    assert math.isnan(found.slope.low)
    assert line([(1.0, 1.0), (1.0, 2.0)]) is None
    assert line([]) is None


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=25))
@for_all
def test_nothing_is_claimed_with_few_pairs_or_an_interval_that_holds_zero(values: list[float]) -> None:
    found = estimate(values)
    if found.reading == "no claim":
        assert found.n < CLAIM_PAIRS or found.low <= 0 <= found.high
    else:
        assert found.n >= CLAIM_PAIRS
        assert (found.low > 0) == (found.reading == "better")
        assert (found.high < 0) == (found.reading == "worse")


def test_ten_pairs_carry_a_claim_and_nine_do_not() -> None:
    values = [1.0 + 0.01 * i for i in range(10)]
    assert estimate(values).reading == "better"
    assert estimate([-v for v in values]).reading == "worse"
    assert estimate(values[:9]).reading == "no claim"
    assert math.isnan(estimate([1.0]).low)
    assert Estimate(n=1, mean=1.0, low=math.nan, high=math.nan).reading == "no claim"


logprobs = st.lists(st.tuples(st.floats(-6, 0), st.floats(-6, 0)), min_size=1, max_size=12)


@given(logprobs, st.floats(0.01, 1), st.floats(1.5, 4))
@for_all
def test_the_weights_score_orders_as_the_raw_weight_that_training_uses(
    pairs: list[tuple[float, float]], threshold: float, clip: float
) -> None:
    student, teacher = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    found = scores(student, teacher, threshold=threshold, clip=clip)
    s, t = torch.tensor(student.astype(np.float64))[None], torch.tensor(teacher.astype(np.float64))[None]
    raw = pivotal_weights(s, t, torch.ones_like(s, dtype=torch.bool), threshold=threshold, clip=clip).raw
    assert math.exp(found[WEIGHT]) == pytest.approx(float(raw), rel=1e-6)


def test_each_ablation_leaves_out_what_its_name_says() -> None:
    student, teacher = np.array([-0.1, -0.2, -1.0]), np.array([-0.1, -1.2, -6.0])  # log-ratios 0, 1 and 5
    found = scores(student, teacher, threshold=0.5, clip=2.0)
    assert found == pytest.approx(
        {"weight": 1.5, "no threshold": 1.0, "no clip": 3.0, "mean log-ratio": 2.0, "sequence log-ratio": 6.0}
    )
    assert set(found) == set(SCORES)
    assert scores(student[:0], teacher[:0], threshold=0.5, clip=2.0) == dict.fromkeys(SCORES, 0.0)


def test_a_prefix_is_weighed_as_if_the_response_ended_there() -> None:
    zero = np.zeros(4)
    late = [zero - 0.0, zero - 0.0]
    teacher = [np.array([0.0, 0.0, 0.0, -3.0]), zero]
    known = {"threshold": 0.5, "clip": 2.0}
    assert areas(late, teacher, ["incorrect", "correct"], **known)[WEIGHT] == 1.0
    assert areas(late, teacher, ["incorrect", "correct"], **known, prefix=3)[WEIGHT] == 0.5
    assert areas(late, teacher, ["correct", "correct"], **known)[WEIGHT] is None


@given(st.integers(0, len(ROWS) - 1), st.integers(0, 10**6), st.floats(0, 1))
@for_all
def test_what_a_repairing_teacher_is_taught_is_right_in_the_end_and_its_slips_are_not_learnt(
    index: int, seed: int, slip: float
) -> None:
    row = ROWS[index]
    text, slips = repaired_solution(row.problem, random.Random(seed), slip=slip)
    assert TASK.verify(row, text) == "correct"
    assert text.count(REPAIR) == len(slips)
    steps = {step.split("=")[0]: step.split("=")[1] for step in work(row.problem).split(";")[:-1]}
    for start, end in slips:
        wrong = text[start:end]
        left = text[:start].rpartition(";")[2].removesuffix("=")
        assert wrong.isdigit()
        assert wrong != steps[left]
        assert text[end:].startswith(f"{REPAIR}{left}={steps[left]};")
    learnt = list(text)
    for start, end in reversed(slips):
        again = text[:start].rpartition(";")[2]
        del learnt[start - len(again) : end + len(REPAIR)]
    assert "".join(learnt) == work(row.problem)


def test_what_a_teacher_does_not_notice_is_carried_to_the_end_in_plain_numbers() -> None:
    rng = random.Random(0)
    marked = carried = 0
    for row in ROWS:
        text, slips = repaired_solution(row.problem, rng, slip=0.5, mark=0.25)
        marked += text.count(REPAIR)
        carried += len(slips) - text.count(REPAIR)
        assert "-" not in text.rpartition("#")[2]
        for start, end in slips:
            wrong, rest = text[start:end], text[end:]
            assert rest.startswith((REPAIR, f";{wrong}+", f";{wrong}-", f";#{wrong}"))  # the next step goes on from it
    assert marked / (marked + carried) == pytest.approx(0.25, abs=0.06)
    text, slips = repaired_solution(ROWS[0].problem, rng, slip=1.0, mark=0.0)
    assert REPAIR not in text
    assert len(slips) == 3


def test_who_forgets_to_borrow_is_wrong_by_ten_there_and_nowhere_else() -> None:
    rng = random.Random(0)
    forgotten = needed = 0
    for row in ROWS:
        assert unborrowed_solution(row.problem, rng, forgets=0.0) == work(row.problem)
        text = unborrowed_solution(row.problem, rng, forgets=0.85)
        errors = []
        for step in text.split(";")[:-1]:
            left, term, result = map(int, re.fullmatch(r"(\d+)([+-]\d+)=(\d+)", step).groups())  # type: ignore[union-attr]
            borrows = (left + term) // 10 != left // 10 + int(term / 10) and term < 0
            errors.append(result - left - term)
            assert errors[-1] in ((0, 10) if borrows else (0,)), (row.problem, step)
            needed += borrows
        forgotten += sum(error == 10 for error in errors)
        assert TASK.verify(row, text) == ("incorrect" if any(errors) else "correct")
    assert needed > 50
    assert forgotten / needed == pytest.approx(0.85, abs=0.1)


def test_a_share_of_the_steps_slips() -> None:
    rng = random.Random(0)
    found = [repaired_solution(row.problem, rng, slip=0.25) for row in ROWS]
    assert sum(len(slips) for _, slips in found) / (3 * len(ROWS)) == pytest.approx(0.25, abs=0.06)
    assert all(slipped_step(row.problem, rng) != work(row.problem).split(";")[0] for row in ROWS)
