"""reasoning-gym's tasks behind our protocol."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.tasks import Task, make_task
from renio_pipeline.types import Row

pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
SUMS = {"dataset": "chain_sum", "config": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}


def gym(**options: Any) -> Task:
    return make_task("reasoning-gym", {**SUMS, **options})


def test_rows_are_the_same_at_every_call_and_differ_by_seed() -> None:
    rows = gym().rows("held_out", 20)
    assert rows == gym().rows("held_out", 20)
    assert rows[:5] == gym().rows("held_out", 5)
    assert rows != gym(seed=1).rows("held_out", 20)


@pytest.mark.slow
def test_no_problem_is_in_both_splits_or_twice_in_one() -> None:
    train, held_out = gym().rows("train", 100), gym(seed=3).rows("held_out", 12)
    problems = [row.problem for row in train]
    assert len(set(problems)) == 100
    assert not set(problems) & {row.problem for row in held_out}


def test_a_split_that_is_used_up_says_how_many_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"5000 problems requested of split train, but chain_sum has \d+ in its first 600 entries"
    ):
        gym(size=600).rows("train", 5000)


@pytest.mark.parametrize(
    "dataset", ["chain_sum", "word_ladder", "leg_counting", "graph_color", "zebra_puzzles", "gsm_symbolic"]
)
def test_another_process_grades_a_row_by_its_id_alone(dataset: str) -> None:
    row = make_task("reasoning-gym", {"dataset": dataset}).rows("held_out", 3)[2]
    fresh = make_task("reasoning-gym", {"dataset": dataset})
    assert fresh.fault(row) is None
    assert fresh.verify(row, "<answer>surely not this</answer>") == "incorrect"
    if row.answer is not None:
        assert fresh.verify(row, f"<think>a</think> <answer>\n{row.answer}\n</answer>") == "correct"
    else:
        assert dataset == "graph_color", "of these only this one has no single answer"


def test_the_last_answer_counts_and_none_is_unfinished() -> None:
    task = gym()
    (row,) = task.rows("held_out", 1)
    assert task.verify(row, f"<answer>{row.answer}</answer> or <answer>x</answer>") == "incorrect"
    assert task.verify(row, f"in <answer> tags: <answer>{row.answer}</answer>") == "correct"
    for text in ("", str(row.answer), f"<answer>{row.answer}", "<answer> </answer>"):
        assert task.verify(row, text) == "unfinished"


def test_an_answer_that_is_nearly_right_is_not_correct() -> None:
    task = gym()
    (row,) = task.rows("held_out", 1)
    assert task.verify(row, f"<answer>The answer is {row.answer}</answer>") == "incorrect"


def test_a_row_that_is_not_its_own_is_a_fault() -> None:
    assert "is not from reasoning-gym" in str(gym().fault(Row(id="1", problem="1+1", answer="2")))
    assert "different problems each time" in str(gym().fault(Row(id="chain_sum-3", problem="1+1", answer="2")))


@pytest.mark.slow
def test_a_data_set_that_makes_other_problems_in_another_process_is_refused() -> None:
    with pytest.raises(ConfigError, match="isomorphic_strings generates different problems each time"):
        make_task("reasoning-gym", {"dataset": "isomorphic_strings"}).rows("train", 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "chain_sums"}, "task_options.dataset: reasoning-gym has no 'chain_sums'; it has chain_sum"),
        ({"config": {"min_term": 2}}, "task_options.config.min_term: chain_sum has no such key; allowed: min_terms, max_terms"),
        ({"config": {"min_terms": 9, "max_terms": 2}}, "task_options.config: chain_sum rejects it: AssertionError: max_terms"),
        ({"config": {"seed": 3}}, "task_options.config.seed: "),
    ],
)
def test_bad_options_name_their_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gym(**options)
    assert str(caught.value).startswith(message)


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "from renio_pipeline.tasks import make_task\n"
        "make_task('reasoning-gym', {'dataset': 'chain_sum'})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install renio-pipeline[reasoning-gym]" in result.stderr
