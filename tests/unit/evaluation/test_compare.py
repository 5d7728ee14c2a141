"""Whether one model is better than another: the paired tests, and which problems are paired."""

from __future__ import annotations

import math
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.evaluation import compare as module
from renio_pipeline.evaluation.compare import Comparison, compare, mcnemar, sign_flip
from renio_pipeline.evaluation.records import Problem
from renio_pipeline.evaluation.table import comparison_table, show
from tests.unit.evaluation.test_metrics import problem, sample

NAMES = ("a", "b")


def answered(*shares: tuple[int, int], first: int = 0) -> list[Problem]:
    """Problems, each with so many correct responses of so many."""
    return [
        problem(*[sample(verdict="correct" if i < right else "incorrect") for i in range(n)], name=f"p{first + at}")
        for at, (right, n) in enumerate(shares)
    ]


def compared(a: list[Problem], b: list[Problem]) -> Comparison:
    (found,) = compare({"set": a}, {"set": b}, NAMES)
    return found


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
def test_the_exact_test_counts_every_pattern_of_signs(differences: list[float]) -> None:
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product([1, -1], repeat=len(differences))
    ]
    expected = np.mean([s >= abs(sum(differences)) - 1e-9 for s in sums])
    assert sign_flip(np.array(differences), seed=0)[0] == pytest.approx(expected)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemars_test_is_that_of_a_fair_coin_and_agrees_with_sign_flips(gained: int, lost: int) -> None:
    differences = np.array([1.0] * gained + [-1.0] * lost + [0.0] * 5)
    n = gained + lost
    as_far = [math.comb(n, i) for i in range(n + 1) if abs(2 * i - n) >= abs(gained - lost)]
    assert mcnemar(differences)[0] == pytest.approx(sum(as_far) / 2**n)
    if n <= module.MOST_EXACT:
        assert sign_flip(differences, seed=0)[0] == pytest.approx(mcnemar(differences)[0])


def test_drawn_sign_patterns_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.array([0.5, -0.25, 0.75, 0.25, 0.5, -0.5, 0.25, 1.0, -0.25, 0.5])
    exact, told = sign_flip(differences, seed=0)
    assert told == "sign flips, exact"
    monkeypatch.setattr(module, "MOST_EXACT", 3)
    drawn, told = sign_flip(differences, seed=0)
    assert "drawn" in told
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / module.DRAWS))


def test_models_that_are_alike_are_told_apart_once_in_20() -> None:
    rng = np.random.default_rng(0)
    p_values = [sign_flip((rng.binomial(4, 0.5, 11) - rng.binomial(4, 0.5, 11)) / 4, seed=0)[0] for _ in range(400)]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.075


def test_a_model_that_gains_on_every_problem_is_better() -> None:
    found = compared(answered(*[(1, 4)] * 40), answered(*[(3, 4)] * 40))
    assert (found.mean_a, found.mean_b, found.difference.value) == (0.25, 0.75, 0.5)
    assert found.difference.low == found.difference.high == 0.5
    assert found.p_value < 1e-4
    assert found.test == "sign flips, 50,000 drawn"


def test_pairing_sees_what_the_two_means_alone_do_not() -> None:
    """Problems vary far more than the models differ."""
    a, b = [(0, 8), (8, 8)] * 15, [(1, 8), (8, 8)] * 15
    found = compared(answered(*a), answered(*b))
    assert found.p_value < 1e-3
    assert found.difference.low > 0


def test_with_one_response_a_problem_the_test_is_mcnemars() -> None:
    found = compared(answered(*[(0, 1)] * 6), answered(*[(1, 1)] * 6))
    assert found.test == "McNemar, exact"
    assert found.p_value == pytest.approx(2 / 2**6)


def test_problems_of_one_model_alone_are_left_out_and_counted() -> None:
    found = compared(answered(*[(1, 2)] * 5), answered(*[(2, 2)] * 4, first=2))
    assert (found.problems, found.only_a, found.only_b) == (3, 2, 1)
    assert found.mean_b == 1


def test_a_problem_of_the_same_id_and_another_text_is_another_problem() -> None:
    ours = answered((1, 1))
    theirs = [Problem(id=p.id, problem="another text", gold=p.gold, samples=p.samples) for p in ours]
    with pytest.raises(ConfigError, match="no problem of set has the same id and text in the results of a and b"):
        compared(ours, theirs)


def test_results_without_a_data_set_in_common_are_refused() -> None:
    with pytest.raises(ConfigError, match="a has data sets x and b has y"):
        compare({"x": answered((1, 1))}, {"y": answered((1, 1))}, NAMES)


shares = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@settings(deadline=None, derandomize=True)
@given(shares, st.integers(1, 4), st.integers(1, 3))
def test_identical_results_have_a_p_value_of_1(right: list[int], n: int, times: int) -> None:
    """However many responses a problem has, and also where both have the same shares of different numbers."""
    given = [(min(each, n), n) for each in right]
    for other in (given, [(times * k, times * n) for k, n in given]):
        found = compared(answered(*given), answered(*other))
        assert (found.p_value, found.difference.value, found.difference.low, found.difference.high) == (1.0, 0.0, 0.0, 0.0)
        assert found.mean_a == found.mean_b


def test_identical_results_are_shown_with_p_1(capsys: pytest.CaptureFixture[str]) -> None:
    same = answered(*[(k % 4, 3) for k in range(20)])
    show(comparison_table([compared(same, same)]))
    shown = capsys.readouterr().out
    assert re.search(r"\+0\.0 \[\+0\.0, \+0\.0\]\s+1\s+sign flips, exact", shown)
    assert "nan" not in shown


def test_a_problem_without_samples_is_refused_by_its_name() -> None:
    a, b = answered((1, 2), (0, 2)), answered((1, 2), (0, 0))
    with pytest.raises(ConfigError, match="problem 'p1' of set has no samples in the results of b"):
        compared(a, b)
    with pytest.raises(ConfigError, match="problem 'p1' of set has no samples in the results of a"):
        compared(b, a)
