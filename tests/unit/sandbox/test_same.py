"""When a result or an output is what the tests expect."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.sandbox.same import same, same_output


@pytest.mark.parametrize(
    ("value", "wanted", "equal"),
    [((1, 2), [1, 2], True), ([1], [1, 2], False), ({1: 2}, {"1": 2}, True), (0.1 + 0.2, 0.3, True), (1, True, True),
     ("1", 1, False), (float("nan"), 1.0, False), ({1}, [1], False),
     (None, None, True), (None, 0, False), ([[1.0000001]], [[1.0]], True)],
)  # fmt: skip
def test_results_are_equal_as_json_is(value: Any, wanted: Any, equal: bool) -> None:
    assert same(value, wanted) is equal


@pytest.mark.parametrize(
    ("output", "wanted", "equal"),
    [("1 2\n", "1 2", True), ("1  2 ", "1\n2\n", True), ("12", "1 2", False), ("0.3333333", "0.33333333", True),
     ("0.34", "0.33", False), ("2", "3", False), ("nan", "1.0", False), ("", "1", False), ("1000000", "1000001", False)],
)  # fmt: skip
def test_outputs_are_compared_word_by_word(output: str, wanted: str, equal: bool) -> None:
    assert same_output(output, wanted) is equal


@pytest.mark.parametrize(
    ("output", "wanted", "equal"),
    [("3", "3.0", True), ("3.0", "3", True), ("3.1", "3", False), ("3", "3.1", False), ("1e-05", "0.00001", True),
     ("0.00001", "1e-05", True), ("1e3", "1000", True), ("1000", "1e3", True), ("0.0000002", "0.0000001", False),
     ("3.2e-19", "1.6e-19", False), ("1.6000001e-19", "1.6e-19", True), ("1e-12", "0.0", True), ("0.0", "1e-12", False),
     ("-0.0", "0.0", True), ("0.33", "0.333333", False), ("0.333333", "0.333333333333", True), ("0101", "101", False),
     ("101.0", "0101", True), ("1_000", "1000", False), ("0x10", "16", False), ("1e5000", "1e5001", False),
     ("inf", "inf", True), ("nan", "nan", True), ("Yes", "YES", False), ("1.", "1", True), (".5", "0.5", True),
     ("+1", "1", False), ("١", "1", False)],
)  # fmt: skip
def test_numbers_that_are_written_differently_are_equal_both_ways(output: str, wanted: str, equal: bool) -> None:
    assert same_output(output, wanted) is equal


@settings(deadline=None, derandomize=True)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-5, 1e3))
def test_a_number_is_near_itself_in_every_notation_and_not_near_one_that_differs_in_the_fifth_digit(
    x: float, off: float
) -> None:
    assert same(x, x)
    for text in (repr(x), f"{x:.17e}"):
        assert same_output(text, repr(x))
        assert same_output(repr(x), text)
    if 1 <= abs(x) < 1e300:  # below, the last digit that is written counts as well
        assert not same(x * (1 + off), x)
        assert not same(x, x * (1 + off))


@pytest.mark.parametrize(
    ("value", "wanted", "equal"), [(2e-7, 1e-7, False), (1e-12, 0.0, True), (3.0, 3, True), (3, 3.0, True)]
)
def test_small_results_are_compared_relative_to_their_size(value: float, wanted: float, equal: bool) -> None:
    assert same(value, wanted) is equal
