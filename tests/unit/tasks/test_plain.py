"""The plain task: which answers a last line can equal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row

TASK = make_task("plain")
GSM8K = "She sold 48/2 = <<48/2=24>>24 clips.\n#### 72"


def row(answer: str | None) -> Row:
    return Row(id="1", problem="?", answer=answer)


@pytest.mark.parametrize("answer", ["", " ", "\n\t\n", "\u2028"])
def test_a_blank_answer_is_a_fault(answer: str) -> None:
    assert TASK.fault(row(answer)) == f"answer {answer!r} is blank, and no last line of a response is"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("one\ntwo", "by its last one"),
        ("one\u2028two", "by its last one"),
        (GSM8K, "GSM8K's layout, whose answer stands after ####: set data.preset=gsm8k, or task=maths"),
        ("So we get\n$\\boxed{72}$.", "MATH's layout, whose answer stands in a box: set task=maths, or data.preset=math"),
        ("Sure.\n<answer>72</answer>\n", "<answer>: give data.fields.answer a field that has it alone"),
        ("<think>\nhm\n</think>\n72", "behind a thinking section: give data.fields.answer a field that has it alone"),
        ("```python\nprint(72)\n```", "it is a program: set task=code, with tests in the field data.fields.tests"),
    ],
)
def test_an_answer_of_several_lines_is_a_fault_that_knows_the_layout(answer: str, said: str) -> None:
    found = TASK.fault(row(answer))
    assert found is not None
    assert "has several lines, and a response is compared by its last one" in found
    assert found.endswith(said)
    assert len(found) <= 300, "longer faults are cut where they are shown"


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="ab #\n\r\t\x0b\x1c\x85\u2028 ", max_size=8), st.text(alphabet="ab\n ", max_size=8))
def test_an_answer_is_a_fault_exactly_if_no_response_is_correct(answer: str, before: str) -> None:
    can_be_equalled = TASK.verify(row(answer), f"{before}\n{answer.strip()}\n") == "correct"
    assert (TASK.fault(row(answer)) is None) == can_be_equalled


def test_a_row_without_an_answer_has_no_fault() -> None:
    assert TASK.fault(row(None)) is None
