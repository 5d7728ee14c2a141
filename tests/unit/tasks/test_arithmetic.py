"""The arithmetic task: its verdicts, its splits, and the flaws that the student is taught on purpose."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renio_pipeline.tasks.arithmetic import Arithmetic, noisy_solution, slip_once, split_of, stop_early, work
from renio_pipeline.types import Row

TASK = Arithmetic()
ROWS = TASK.rows("train", 200) + TASK.rows("held_out", 200)
rows = st.sampled_from(ROWS)
generators = st.integers(0, 2**32).map(random.Random)


def true_answer(problem: str) -> int:
    """The answer found another way than the task finds it."""
    assert re.fullmatch(r"[0-9+-]+", problem)
    return eval(problem)


def steps_of(text: str) -> list[tuple[int, int, int]]:
    """Each step as (running total it starts from, signed term, result it claims)."""
    return [tuple(map(int, re.fullmatch(r"(\d+)([+-]\d+)=(\d+)", step).groups())) for step in text.split(";")[:-1]]


def test_the_example_of_the_documentation() -> None:
    assert work("37+48-9+21") == "37+48=85;85-9=76;76+21=97;#97"


@pytest.mark.parametrize("terms", [2, 3, 4, 7])
def test_problems_have_the_asked_number_of_two_digit_terms_and_no_negative_total(terms: int) -> None:
    for row in Arithmetic(terms=terms).rows("train", 100):
        assert re.fullmatch(rf"[1-9]\d([+-][1-9]\d){{{terms - 1}}}", row.problem)
        assert int(row.answer) == true_answer(row.problem)
        assert len(steps_of(row.solution)) == terms - 1
        assert all(result >= 0 for _, _, result in steps_of(row.solution))


@given(rows)
def test_worked_solutions_are_right_step_by_step_and_verify(row: Row) -> None:
    assert all(start + term == result for start, term, result in steps_of(row.solution))
    assert TASK.verify(row, row.solution) == "correct"
    assert TASK.verify(row, row.solution + " \n") == "correct"


@given(rows, st.integers(-999, 999))
def test_no_other_answer_verifies(row: Row, answer: int) -> None:
    text = row.solution.rpartition("#")[0] + f"#{answer}"
    assert TASK.verify(row, text) == ("correct" if answer == true_answer(row.problem) else "incorrect")


@given(rows, st.data())
def test_a_mutated_final_answer_never_verifies(row: Row, data: st.DataObject) -> None:
    """Any one character of ``#answer`` replaced, doubled or dropped."""
    at = data.draw(st.integers(row.solution.index("#"), len(row.solution) - 1))
    kept = row.solution[at]
    other = data.draw(st.sampled_from([c for c in "0123456789#;=+-:x" if c != kept] + ["", kept + kept]))
    assert TASK.verify(row, row.solution[:at] + other + row.solution[at + 1 :]) != "correct"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("#97", "correct"),
        ("37+48=84;#97", "correct"),
        ("", "unfinished"),
        ("37+48=85;85-9=76", "unfinished"),
        ("97", "unfinished"),
        ("#", "unfinished"),
        ("# 97", "unfinished"),
        ("#x", "unfinished"),
        ("#96", "incorrect"),
        ("#-97", "incorrect"),
        ("#097", "incorrect"),
        ("#+97", "unfinished"),
        ("#97.", "incorrect"),
        ("#97;", "incorrect"),
        ("#97 97", "incorrect"),
        ("#96#97", "incorrect"),
        ("#97#97", "incorrect"),
        ("##97", "incorrect"),
        ("#97#", "incorrect"),
        ("#٩٧", "unfinished"),
    ],
)
def test_the_verifier_is_strict(text: str, verdict: str) -> None:
    assert TASK.verify(Row(id="x", problem="37+48-9+21", answer="97"), text) == verdict


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 10))
def test_splits_are_disjoint_whatever_the_seed(seed: int, other_seed: int, extra: int) -> None:
    train = {row.problem for row in Arithmetic(seed=seed).rows("train", 50 + extra)}
    held_out = {row.problem for row in Arithmetic(seed=other_seed).rows("held_out", 20)}
    assert not train & held_out
    assert {split_of(problem) for problem in train} == {"train"}
    assert {split_of(problem) for problem in held_out} == {"held_out"}


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_fewer_rows_are_a_prefix_of_more_and_none_comes_twice(split: str) -> None:
    many = TASK.rows(split, 1000)
    assert TASK.rows(split, 0) == []
    assert TASK.rows(split, 10) == many[:10]
    assert Arithmetic().rows(split, 1000) == many
    assert len({row.problem for row in many}) == len({row.id for row in many}) == len(many) == 1000
    assert Arithmetic(seed=1).rows(split, 10) != many[:10]


def test_a_split_with_too_few_problems_is_an_error_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="terms=2"):
        Arithmetic(terms=2).rows("held_out", 5000)
    with pytest.raises(ValueError, match="at least 2"):
        Arithmetic(terms=1)


@given(rows, generators)
def test_a_slip_is_one_wrong_step_carried_to_a_wrong_answer(row: Row, rng: random.Random) -> None:
    text = slip_once(row.problem, rng)
    steps = steps_of(text)
    assert [start + term == result for start, term, result in steps].count(False) == 1
    assert all(before[2] == after[0] for before, after in itertools.pairwise(steps))
    assert all(result >= 0 for _, _, result in steps)
    assert text.endswith(f";#{steps[-1][2]}")
    assert [term for _, term, _ in steps] == [term for _, term, _ in steps_of(row.solution)]
    assert TASK.verify(row, text) == "incorrect"


@given(rows, generators)
def test_stopping_early_is_a_true_prefix_and_a_wrong_guess(row: Row, rng: random.Random) -> None:
    text = stop_early(row.problem, rng)
    steps, _, guess = text.rpartition("#")
    assert row.solution.startswith(steps)
    assert 1 <= steps.count(";") < row.solution.count(";")
    assert int(guess) != true_answer(row.problem)
    assert TASK.verify(row, text) == "incorrect"


def test_a_solution_of_one_step_cannot_stop_early() -> None:
    with pytest.raises(ValueError, match="3 terms"):
        stop_early("37+48", random.Random(0))


def test_the_shares_of_flaws_are_those_asked_for() -> None:
    rng = random.Random(0)
    drawn = [(row, noisy_solution(row.problem, rng, early=0.3, slip=0.2)) for row in ROWS * 10]
    flaws = [noisy.flaw for _, noisy in drawn]
    assert flaws.count("early") / len(flaws) == pytest.approx(0.3, abs=0.03)
    assert flaws.count("slip") / len(flaws) == pytest.approx(0.2, abs=0.03)
    assert all((TASK.verify(row, noisy.text) == "correct") == (noisy.flaw == "none") for row, noisy in drawn)


@pytest.mark.parametrize(
    ("text", "answer"), [("1+1=2;#2", "2"), ("#-7 \n", "-7"), ("1+1=2", None), ("#1;#2", None), ("#02", None)]
)
def test_the_final_answer_is_the_number_after_the_one_mark(text: str, answer: str | None) -> None:
    assert TASK.final_answer(text) == answer


def test_a_gold_answer_that_nobody_could_give_is_a_fault() -> None:
    assert TASK.fault(Row(id="1", problem="1+1", answer="2.0")) == "answer '2.0' is not an integer in plain digits"
    assert TASK.fault(Row(id="1", problem="1+1")) is None
    assert not any(TASK.fault(row) for row in TASK.rows("train", 50))
