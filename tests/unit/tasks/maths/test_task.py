"""Mathematics: where a response's answer is, what is unfinished, and which gold answers cannot be used."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.maths import last_box
from renio_pipeline.types import Row

TASK = make_task("maths")
for_all = settings(deadline=None, derandomize=True, max_examples=40)


def row(answer: str | None) -> Row:
    return Row(id="1", problem="?", answer=answer)


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("1/2", r"so it is \boxed{0.5}."),
        (r"\frac{1}{2}", r"\boxed{\frac12}"),
        (r"$\frac{1}{2}$", r"$$\boxed{\dfrac{1}{2}}$$"),
        (r"The answer is $\boxed{7}$.", r"\boxed{7}"),
        ("1,000", r"\boxed{1000}"),
        (r"\{1, 2, 3\}", r"\boxed{3, 1, 2}"),
        (r"x^2 - 1", r"\boxed{(x-1)(x+1)}"),
        (r"[0, \infty)", r"\boxed{[0,\infty)}"),
        ("5", r"\boxed{x = 5}"),
        ("12", r"\boxed{12 \text{ cm}}"),
        ("4", r"first \boxed{3}, but no: \boxed{4}"),
        ("4", "Without a box, the answer is 4."),
    ],
)
def test_equal_answers_are_correct(gold: str, response: str) -> None:
    assert TASK.verify(row(gold), response) == "correct"


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("1/2", r"\boxed{0.51}"),
        ("4", r"4, or rather \boxed{5}"),
        ("4", r"\boxed{4} and then \boxed{5}"),
        ("2", r"\boxed{1, 2, 3}"),
        (r"(0, 1)", r"\boxed{[0, 1]}"),
        ("3", r"\boxed{\text{three}}"),
        ("7", r"\boxed{no idea {at} all}"),
    ],
)
def test_other_answers_are_incorrect_also_where_the_right_one_is_mentioned(gold: str, response: str) -> None:
    assert TASK.verify(row(gold), response) == "incorrect"


@pytest.mark.parametrize("response", ["", "hm", r"\boxed{}", r"\boxed{", "so it must be that"])
def test_a_response_without_an_answer_is_unfinished(response: str) -> None:
    assert TASK.verify(row("4"), response) == "unfinished"
    assert TASK.final_answer(response) is None


def test_a_row_without_an_answer_has_no_verdict_and_no_fault() -> None:
    assert TASK.verify(row(None), r"\boxed{4}") is None
    assert TASK.fault(row(None)) is None


@for_all
@given(st.integers(-999, 999), st.integers(1, 999), st.integers(1, 9))
def test_every_way_to_write_a_fraction_is_one_vote(above: int, below: int, times: int) -> None:
    ways = [rf"\frac{{{above}}}{{{below}}}", rf"\frac{{{times * above}}}{{{times * below}}}", f"{above}/{below}"]
    assert len({TASK.final_answer(rf"\boxed{{{way}}}") for way in ways}) == 1
    assert {TASK.verify(row(ways[0]), rf"\boxed{{{way}}}") for way in ways} == {"correct"}
    assert TASK.verify(row(ways[0]), rf"\boxed{{\frac{{{above + 1}}}{{{below}}}}}") == "incorrect"


def test_a_decimal_votes_with_its_fraction() -> None:
    votes = [TASK.final_answer(rf"\boxed{{{answer}}}") for answer in (r"0.5", r"\frac12", r"\frac{2}{4}", r".5", r"0.50")]
    assert set(votes) == {"1/2"}


@for_all
@given(st.text("{}\\ab", max_size=12).filter(lambda text: text.count("{") == text.count("}")))
def test_a_box_ends_where_its_braces_balance(content: str) -> None:
    depth, lowest = 0, 0
    for at, c in enumerate(content):
        depth += ((c == "{") - (c == "}")) * (at == 0 or content[at - 1] != "\\")
        lowest = min(lowest, depth)
    if depth == 0 and lowest == 0 and not content.endswith("\\"):
        assert last_box(f"a \\boxed{{1}} b \\boxed{{{content}}} c {{d}}") == content.strip()


@pytest.mark.parametrize("gold", ["", "  ", "$$", r"\frac{", "{", r"\boxed{}"])
def test_a_gold_answer_that_cannot_be_parsed_is_a_fault(gold: str) -> None:
    assert TASK.fault(row(gold)) == f"answer {gold!r} cannot be parsed by math-verify"


def test_a_long_gold_answer_is_told_shortly() -> None:
    said = TASK.fault(row("{" * 250))
    assert said == f"answer {'{' * 200 + '...'!r} cannot be parsed by math-verify"


SOUND = [
    "42",
    "-0.25",
    "(52, 90)",
    r"\frac{13}{61}",
    r"7\sqrt{14}+7",
    r"a_{83} = \frac{n(n+9)}{2}",
    "B",
    r"50\%",
    r"x \in [3, 7)",
    r"\text{no}",
    r"\{1,2\} \cup \{3\}",
    r"1 \leq x < 3",
    r"2^{10}",
    r"\frac17",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
]


@pytest.mark.parametrize("gold", SOUND)
def test_a_gold_answer_without_fault_is_correct_for_itself(gold: str) -> None:
    assert TASK.fault(row(gold)) is None
    assert TASK.verify(row(gold), rf"\boxed{{{gold}}}") == "correct"


FORMS = [
    "(%d, %d)", r"%d\sqrt{%d}", "%d,%d", "%d.%d", r"%d^{%d}", r"[%d, \infty)%d", r"\frac%d%d", "%d/%d", r"\frac{%d}{%d}",
    "%d:%02d", "%d_%d", "%d %d/9", r"%d.\overline{%d}", "%de%d", r"%d\,%03d", r"\binom{%d}{%d}", "%d!+%d", r"%d\%% or %d",
    "x > %d or x < %d",
]  # fmt: skip


@for_all
@given(st.sampled_from(FORMS), st.integers(0, 99), st.integers(1, 99))
def test_the_digits_of_an_answer_do_not_decide_whether_it_can_be_read(form: str, a: int, b: int) -> None:
    assert (TASK.fault(row(form % (a, b))) is None) == (TASK.fault(row(form % (12, 34))) is None)


@pytest.mark.parametrize("gold", [r"2x+", r"\frac{1}{", r"\sqrt", "$$ $$", r"\boxed{\frac{1}}", r"\undefined{3}", "?", "x^"])
def test_a_slip_of_latex_is_a_fault(gold: str) -> None:
    assert TASK.fault(row(gold)) is not None


@pytest.mark.parametrize(
    "gold", ["Tuesday", "no solution", "3 hours and 20 minutes", "March 3", r"\text{blue}", "星期一", "9^{9^{9^9}}"]
)
def test_words_and_what_is_too_large_to_compute_are_compared_as_text(gold: str) -> None:
    assert TASK.fault(row(gold)) is None
    assert TASK.verify(row(gold), rf"\boxed{{{gold}}}") == "correct"
    assert TASK.verify(row(gold), r"\boxed{17}") == "incorrect"


def test_the_answer_of_a_known_layout_is_behind_its_mark() -> None:
    gold = "He has 40 + 2 = <<40+2=42>>42 apples.\n#### 42"
    assert TASK.fault(row(gold)) is None
    assert TASK.verify(row(gold), r"\boxed{42}") == "correct"
    assert TASK.verify(row(gold), r"\boxed{40}") == "incorrect"


def test_the_prompt_asks_for_a_box_and_a_teacher_is_shown_the_solution() -> None:
    asked = Row(id="1", problem="What is 1+1?", answer="2", solution="1+1=2")
    (message,) = TASK.messages(asked)
    assert message["content"].startswith("What is 1+1?\n\n")
    assert r"\boxed{}" in message["content"]
    (privileged,) = TASK.privileged_messages(asked)
    assert privileged["content"].startswith(message["content"])
    assert "1+1=2" in privileged["content"]
