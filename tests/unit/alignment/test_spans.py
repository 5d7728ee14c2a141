"""Spans of two tokenizations, as properties over every way to cut a text, and against a plain search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renio_pipeline.alignment.spans import NO_SPAN, Pieces, Spans, spans_of

Cut = list[int]


@st.composite
def two_cuts(draw: st.DrawFn) -> tuple[Cut, Cut]:
    """Lengths of both sides' tokens of one text, some of them of no bytes."""
    total = draw(st.integers(0, 12))

    def side() -> Cut:
        inner = sorted(draw(st.sets(st.integers(1, max(1, total - 1))))) if total > 1 else []
        bounds = [0, *inner, total]
        lengths = [b - a for a, b in itertools.pairwise(bounds) if b > a]
        for at in draw(st.lists(st.integers(0, len(lengths)), max_size=3)):
            lengths.insert(at, 0)
        return lengths

    return side(), side()


def pieces(lengths: Cut, unscored: set[int] = frozenset()) -> Pieces:  # type: ignore[assignment]
    return Pieces(lengths=np.array(lengths, np.int64), scored=np.array([i not in unscored for i in range(len(lengths))], bool))


def aligned(own: Cut, their: Cut) -> Spans:
    return spans_of(pieces(own), pieces(their), np.ones(len(their), bool))


def bytes_of(lengths: Cut, spans: np.ndarray) -> list[int]:
    """The span of each byte of the text."""
    return [int(span) for span, length in zip(spans, lengths, strict=True) for _ in range(length)]


@given(two_cuts())
def test_each_byte_is_in_one_span_the_same_on_both_sides_and_spans_are_as_small_as_can_be(cuts: tuple[Cut, Cut]) -> None:
    own, their = cuts
    spans = aligned(own, their)
    bounds = [set(np.cumsum(side).tolist()) | {0} for side in cuts]
    common = sorted(bounds[0] & bounds[1])
    expected = [sum(1 for end in common[1:] if end <= at) for at in range(sum(own))]
    assert bytes_of(own, spans.student) == bytes_of(their, spans.teacher) == expected
    assert spans.count == len(common) - 1
    for length, span in zip(own, spans.student, strict=True):
        assert (span == NO_SPAN) == (length == 0)
    if sum(own):
        assert (spans.teacher != NO_SPAN).all()  # what the teacher says is counted, also of tokens without bytes


@given(two_cuts())
def test_sums_over_spans_are_the_sums_of_the_teachers_tokens(cuts: tuple[Cut, Cut]) -> None:
    own, their = cuts
    spans = aligned(own, their)
    numbers = np.random.default_rng(sum(own) + 100 * len(own) + len(their))
    student, teacher = (numbers.uniform(-5, 0, len(side)).astype(np.float32) for side in cuts)
    laid = spans.laid(student, teacher)
    for span in range(spans.count):
        np.testing.assert_allclose(laid[spans.student == span].sum(), teacher[spans.teacher == span].sum(), atol=1e-5)
        ratios = (student - laid)[spans.student == span]
        np.testing.assert_allclose(ratios, ratios[0], atol=1e-5)  # a span's ratio is divided equally
    assert laid[spans.student == NO_SPAN].tolist() == student[spans.student == NO_SPAN].tolist()
    if sum(own):
        np.testing.assert_allclose(laid[spans.student != NO_SPAN].sum(), teacher.sum(), atol=1e-4)


@given(st.lists(st.integers(1, 5), max_size=12))
def test_equal_cuts_give_the_teachers_numbers_digit_for_digit(lengths: Cut) -> None:
    numbers = np.random.default_rng(len(lengths))
    student, teacher = (numbers.uniform(-30, 0, len(lengths)).astype(np.float32) for _ in range(2))
    assert aligned(lengths, lengths).laid(student, teacher).tolist() == teacher.tolist()


def test_a_span_that_one_side_cannot_score_is_none() -> None:
    spans = spans_of(pieces([2, 2, 2]), pieces([2, 1, 1, 2], {2}), np.array([True, True, False, True]))
    assert (spans.student.tolist(), spans.teacher.tolist(), spans.count) == ([0, NO_SPAN, 1], [0, NO_SPAN, 1], 2)
    laid = spans.laid(np.array([-1.0, -2.0, -3.0]), np.array([-0.5, -9.0, -0.25]))
    assert laid.tolist() == [-0.5, -2.0, -0.25]  # nothing is said of the second token, so its ratio is 0


def test_what_a_teacher_gives_no_probability_has_none_and_nothing_is_nan() -> None:
    spans = aligned([1, 1, 2], [2, 2])
    assert spans.laid(np.array([-1.0, -1.0, -2.0]), np.array([-np.inf, -3.0])).tolist() == [-np.inf, -np.inf, -3.0]


def test_texts_of_unequal_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="the student's tokens are 3 bytes, and the teacher's 4"):
        aligned([1, 2], [4])


@given(two_cuts())
def test_a_place_is_where_both_sides_have_one_token_between_the_same_two_bytes(cuts: tuple[Cut, Cut]) -> None:
    own, their = cuts
    expected = []
    for t, length in enumerate(own):
        start = sum(own[:t])
        same = [u for u in range(len(their)) if length and their[u] == length and sum(their[:u]) == start]
        beside = [u for u in range(len(their)) if not their[u] and start <= sum(their[:u]) < start + length]
        last = start + length == sum(own) and any(not x and sum(their[:u]) == sum(own) for u, x in enumerate(their))
        expected.append(same[0] if same and not beside and not last else NO_SPAN)
    assert aligned(own, their).places.tolist() == expected


def test_what_a_side_cannot_score_is_no_place() -> None:
    sent = np.array([True, False, True])
    spans = spans_of(pieces([1, 1, 1]), pieces([1, 1, 1], {1}), sent)
    assert spans.places.tolist() == [0, NO_SPAN, 1]
