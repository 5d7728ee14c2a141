"""Mathematics: what holds for all numbers, all ways to write them, and all texts."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row

TASK = make_task("maths")
for_all = settings(deadline=None, derandomize=True, max_examples=60)
integers = st.integers(-(10**9), 10**9)
SEPARATORS = [",", " ", r"\,", r"\;", r"\ ", "{,}", "~", "'", "_", "\u202f", "\u2009", "\u00a0", r",\!", "’"]
AROUND = [
    "%s",
    "$%s$",
    r"\(%s\)",
    " %s ",
    r"\displaystyle %s",
    r"\mathbf{%s}",
    "%s.",
    r"\text{%s}",
    "**%s**",
    r"%s\quad",
    "{%s}",
]
UNITS = [
    "%s cm",
    r"%s\text{ cm}",
    r"%s\,\mathrm{km/h}",
    r"\$%s",
    "€%s",
    "%s €",
    r"%s\text{ dollars}",
    "%s apples",
    r"%s^\circ",
    "%s°",
    r"%s\%%",
    "%s percent",
]
COMMANDS = [r"\frac", r"\sqrt", r"\text", r"\boxed", r"\pm", r"\cup", r"\left", r"\sum", r"\overline", " and "]
MATRIX = [r"\begin{pmatrix}", r"\end{pmatrix}"]
CHARACTERS = list(r"0123456789xyni+-*/=<>()[]{}\|,;:.!^_$%° ½²−…'\"&")
TEXTS = st.lists(st.sampled_from([*CHARACTERS, *COMMANDS, *MATRIX]), max_size=14).map("".join)


def row(answer: str) -> Row:
    return Row(id="1", problem="?", answer=answer)


def verdict(gold: str, said: str) -> str | None:
    return TASK.verify(row(gold), rf"\boxed{{{said}}}")


def vote(said: str) -> str | None:
    return TASK.final_answer(rf"\boxed{{{said}}}")


def grouped(number: int, separator: str) -> str:
    return f"{number:,}".replace(",", separator)


@for_all
@given(integers, st.sampled_from(SEPARATORS), st.sampled_from(AROUND))
def test_an_integer_is_itself_with_any_separators_and_delimiters(number: int, separator: str, around: str) -> None:
    written = around % grouped(number, separator)
    assert verdict(str(number), written) == "correct"
    assert verdict(written, str(number)) == "correct"
    assert verdict(str(number + 1), written) == "incorrect"
    assert vote(written) == vote(str(number))


@for_all
@given(st.integers(0, 10**6), st.sampled_from(UNITS))
def test_a_unit_neither_makes_an_answer_right_nor_wrong(number: int, unit: str) -> None:
    assert verdict(str(number), unit % number) == "correct"
    assert verdict(unit % number, str(number)) == "correct"
    assert verdict(str(2 * number + 3), unit % number) == "incorrect"
    assert vote(unit % number) == vote(str(number))


@for_all
@given(st.integers(-(10**6), 10**6).filter(bool), st.integers(-40, 40), st.integers(0, 6))
def test_powers_of_ten_are_one_number_however_they_are_written(mantissa: int, exponent: int, shift: int) -> None:
    value = Fraction(mantissa) * Fraction(10) ** exponent
    moved = Fraction(mantissa, 10**shift)
    decimal = f"{mantissa // 10**shift}" if moved.denominator == 1 else f"{float(moved):.10f}"
    ways = [
        f"{decimal}e{exponent + shift}",
        rf"{decimal}\times 10^{{{exponent + shift}}}",
        f"{decimal} × 10^{exponent + shift}",
    ]
    ways += [f"{decimal}*10**{exponent + shift}", rf"{decimal}\cdot10^{{{exponent + shift}}}", str(value)]
    assert {verdict(ways[-1], way) for way in ways} == {"correct"}
    assert {verdict(way, ways[0]) for way in ways} == {"correct"}
    assert len({vote(way) for way in ways}) == 1
    assert verdict(ways[0], rf"{decimal}\times 10^{{{exponent + shift + 1}}}") == "incorrect"


@for_all
@given(st.integers(0, 99), st.text("0123456789", max_size=4), st.text("0123456789", min_size=1, max_size=5))
def test_a_repeating_decimal_is_its_fraction(whole: int, start: str, block: str) -> None:
    value = Fraction(int(f"{whole}{start}{block}") - int(f"{whole}{start}"), 10 ** len(start) * (10 ** len(block) - 1))
    for way in (rf"{whole}.{start}\overline{{{block}}}", f"{whole}.{start}({block})", rf"{whole}.{start}\bar{{{block}}}"):
        assert verdict(str(value), way) == "correct"
        assert verdict(str(value + Fraction(1, 10**9)), way) == "incorrect"


@for_all
@given(
    st.fractions(-1000, 1000, max_denominator=1000),
    st.fractions(-1000, 1000, max_denominator=1000),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_equality_of_decimals_and_fractions_is_symmetric(one: Fraction, other: Fraction, places: int, more: int) -> None:
    for left, right in (
        (str(one), f"{float(one):.{places}f}"),
        (f"{float(one):.{places}f}", f"{float(one):.{more}f}"),
        (str(one), str(other)),
    ):
        assert verdict(left, right) == verdict(right, left)
    assert (verdict(str(one), str(other)) == "correct") == (one == other)


@for_all
@given(st.fractions(Fraction(1, 999), 1000, max_denominator=999), st.integers(-30, 30))
@pytest.mark.slow
def test_how_large_a_number_is_does_not_decide_how_close_a_decimal_must_be(value: Fraction, exponent: int) -> None:
    gold = rf"{value.numerator}\cdot 10^{{{exponent}}}/{value.denominator}"
    for digits, accepted in ((9, True), (6, True)):
        near = rf"{float(value):.{digits}e}".replace("e", r"\times 10^{") + "}"
        given_size = rf"{near.split(chr(92))[0]}\times 10^{{{int(near.split('{')[1][:-1]) + exponent}}}"
        assert (verdict(gold, given_size) == "correct") == accepted
    assert verdict(gold, rf"2\cdot {value.numerator}\cdot 10^{{{exponent}}}/{value.denominator}") == "incorrect"


@for_all
@given(st.integers(2, 36), st.integers(0, 10**6), st.integers(2, 36))
def test_numbers_in_bases_are_equal_by_value_and_without_a_base_by_digits(base: int, number: int, other: int) -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def written(value: int, radix: int) -> str:
        return (written(value // radix, radix) if value >= radix else "") + digits[value % radix]

    one, two = written(number, min(base, 10)), written(number, min(other, 10))
    assert verdict(f"{one}_{{{min(base, 10)}}}", f"{two}_{{{min(other, 10)}}}") == "correct"
    assert verdict(f"{one}_{{{min(base, 10)}}}", one) == "correct"
    assert (verdict(f"{one}_{{{min(base, 10)}}}", f"{one}_{{{min(other, 10)}}}") == "correct") == (
        int(one, min(base, 10)) == (int(one, min(other, 10)) if all(int(d) < min(other, 10) for d in one) else -1)
    )


@for_all
@given(st.lists(integers, min_size=2, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_the_order_counts_in_tuples_and_sequences_alone(numbers: list[int], random: object) -> None:
    shuffled = sorted(numbers, key=lambda n: hash((n, "other order")))
    for form in ("%s", r"\{%s\}"):
        assert verdict(form % ", ".join(map(str, numbers)), form % ", ".join(map(str, shuffled))) == "correct"
    moved = [*numbers[1:], numbers[0]]
    for form in ("(%s)", r"%s, \ldots"):
        assert verdict(form % ", ".join(map(str, numbers)), form % ", ".join(map(str, moved))) == "incorrect"
    assert verdict(", ".join(map(str, numbers)), ", ".join(map(str, numbers[1:]))) == "incorrect"


@settings(deadline=None, derandomize=True, max_examples=400)
@given(TEXTS, TEXTS)
@pytest.mark.slow
def test_any_text_has_a_verdict_and_a_sound_one_is_correct_for_itself(gold: str, said: str) -> None:
    assert verdict(gold, said) in ("correct", "incorrect", "unfinished")
    TASK.final_answer(said)
    if TASK.fault(row(gold)) is None and r"\boxed" not in gold and "#" not in gold:
        assert verdict(gold, gold) == "correct"
