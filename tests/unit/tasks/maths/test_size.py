"""Mathematics: nothing is computed that is too large, and what is computed takes little."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.maths.reading.size import too_large
from renio_pipeline.types import Row

TASK = make_task("maths")
SECONDS = 3.0  # of CPU time: a thousand times what each takes, and next to nothing beside what it would take
NEVER = [
    "9^{9^{9^9}}",
    "-9^{9^{9^9}}",
    r"9^{9^{9^9}} - 9^{9^{9^9}}",
    r"\frac{1}{9^{9^{9^9}}}",
    r"\sqrt[9^{9^9}]{2}",
    "(9^9)!",
    "9!!!!",
    "(10^{10})!",
    r"\gcd(9^{9^9}, 2)",
    r"\log_{9^{9^9}} 2",
    r"e^{9^{9^9}}",
    r"\binom{10^{18}}{10^{17}}",
    r"\binom{123456789}{61728394}",
    r"\sum_{k=1}^{10^{12}} k^{k}",
    r"\prod_{k=1}^{10^9} k",
    r"\Gamma(123456789)",
    r"1e999999999",
    "10^{999999999999}",
    r"x^{9^{9^9}}",
    r"(x+1)^{100000}",
    r"(0, 9^{9^{9^9}})",
    r"\{9^{9^{9^9}}, 1\}",
    r"x > 9^{9^{9^9}}",
    r"\begin{pmatrix} 9^{9^{9^9}} \\ 1 \end{pmatrix}",
    r"9^{9^{9^9}}\text{ cm}",
    "(" * 40 + "1" + ")" * 40,
    "1+(" * 30 + "1" + ")" * 30,
    r"\frac{1}{1+" * 60 + "1" + "}" * 60,
    "7" * 20_000,
    "1" + ",111" * 5000,
    "x+" * 2000 + "x",
    r"\sin(" * 30 + "1" + ")" * 30,
    "a" * 5000 + "!",
    r"\text{a} " * 500,
    "{" * 3000,
    r"\left(" * 500,
]


@pytest.mark.parametrize("answer", NEVER)
def test_what_is_too_large_is_not_computed(answer: str) -> None:
    before = time.process_time()
    gold = Row(id="1", problem="?", answer=answer)
    assert TASK.fault(gold) is None or TASK.verify(gold, r"\boxed{1}") in ("incorrect", "correct")
    TASK.final_answer(rf"\boxed{{{answer}}}")
    assert TASK.verify(Row(id="1", problem="?", answer="12"), rf"\boxed{{{answer}}}") in ("incorrect", "unfinished")
    if answer.count("{") == answer.count("}"):
        assert TASK.verify(gold, rf"\boxed{{{answer}}}") == "correct"
    assert time.process_time() - before < SECONDS


@pytest.mark.parametrize(
    "part", [r"\boxed{", r"\boxed{1} ", "$", "**1** ", "the answer is ", "{", "\\", "1,", "<answer>", "</think>", "^"]
)
def test_a_long_response_takes_little(part: str) -> None:
    before = time.process_time()
    for text in (part * (60_000 // len(part)), rf"\boxed{{{part * (60_000 // len(part))}}}", part * 2000 + r" \boxed{12}"):
        TASK.verify(Row(id="1", problem="?", answer="12"), text)
        TASK.final_answer(text)
    assert time.process_time() - before < 3 * SECONDS


numbers = st.recursive(
    st.integers(1, 30).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}+{pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}*{pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]})^{{{pair[1]}}}"),
    ),
    max_leaves=4,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(numbers)
def test_a_number_that_may_be_computed_is_as_small_as_that(text: str) -> None:
    if not too_large(text):
        value = eval(text.replace("^", "**").replace("{", "(").replace("}", ")"))
        assert math.log2(value) <= 1 << 17
