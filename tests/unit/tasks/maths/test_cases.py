"""Verdicts on pairs of a gold answer and a response, right ones and wrong ones of each kind: ``cases.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row

TASK = make_task("maths")
CASES = [json.loads(line) for line in Path(__file__).with_name("cases.jsonl").read_text(encoding="utf-8").splitlines()]
KINDS = sorted({case["kind"] for case in CASES})
VOTES_WITHOUT_NAMES = (
    "units",
    "modulo",
    "equations",
    "names",
    "intervals",
    "sets",
)  # 5 km, x = 5, x > 5: what is left is one vote
PLAIN = [
    "signs",
    "unicode",
    "scientific",
    "thousands",
    "repeating",
    "mixed",
    "numbers",
    "tiny",
    "huge",
    "powers",
    "factorials",
    "bases",
]


def of(kind: str) -> list[tuple[str, str, str]]:
    return [(case["gold"], case["response"], case["verdict"]) for case in CASES if case["kind"] == kind]


def row(answer: str) -> Row:
    return Row(id="1", problem="?", answer=answer)


@pytest.mark.parametrize("kind", KINDS)
def test_every_verdict_of_a_kind_is_right(kind: str) -> None:
    wrong = [(gold, response) for gold, response, verdict in of(kind) if TASK.verify(row(gold), response) != verdict]
    assert not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_no_gold_answer_of_a_kind_is_a_fault_and_each_is_correct_for_itself(kind: str) -> None:
    golds = {gold for gold, _, _ in of(kind)}
    assert not [gold for gold in golds if TASK.fault(row(gold))]
    said = {gold: gold if "boxed" in gold else rf"\boxed{{{gold}}}" for gold in golds}
    assert not [gold for gold in golds if TASK.verify(row(gold), said[gold]) != "correct"]


@pytest.mark.parametrize("kind", PLAIN)
def test_equality_of_plain_numbers_is_symmetric(kind: str) -> None:
    pairs = [(gold, response[7:-1], verdict) for gold, response, verdict in of(kind) if response.startswith(r"\boxed{")]
    one_sided = [
        (g, r) for g, r, verdict in pairs if TASK.fault(row(r)) is None and TASK.verify(row(r), rf"\boxed{{{g}}}") != verdict
    ]
    assert not [pair for pair in one_sided if "," not in "".join(pair)]  # 3,5 is a decimal only where one is asked for


@pytest.mark.parametrize(
    "kind", ["signs", "unicode", "scientific", "thousands", "repeating", "mixed", "delimiters", "matrices"]
)
def test_what_is_equal_in_typography_is_one_vote(kind: str) -> None:
    different = [
        (gold, response)
        for gold, response, verdict in of(kind)
        if verdict == "correct" and TASK.final_answer(rf"\boxed{{{gold}}}") != TASK.final_answer(response)
    ]
    allowed = {"6.02214076e23", "1000.99", "2.74"} | ({r"\frac{1}{3}"} if kind == "repeating" else set())  # rounded; 2,74
    assert not [pair for pair in different if pair[0] not in allowed]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in VOTES_WITHOUT_NAMES])
def test_different_answers_are_different_votes(kind: str) -> None:
    same = [
        (gold, response)
        for gold, response, verdict in of(kind)
        if verdict == "incorrect" and TASK.final_answer(rf"\boxed{{{gold}}}") == TASK.final_answer(response)
    ]
    assert not same
