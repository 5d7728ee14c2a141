"""The training texts of the study's own models: to mark and repeat a slip, to follow a shown solution, to forget to borrow."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from renio_pipeline.demo.training import Lesson, lesson
from renio_pipeline.study.marks import REPAIR
from renio_pipeline.tasks.arithmetic import Arithmetic, noisy_solution, work

LARGEST_SLIP = 20

Span = tuple[int, int]  # characters: start and end (exclusive)


def repaired_solution(problem: str, rng: random.Random, *, slip: float, mark: float = 1.0) -> tuple[str, list[Span]]:
    """A worked solution in which each step slips with probability ``slip``, and is then marked and repeated.

    Args:
        mark: the probability that a slip is marked; one that is not is carried to the end, as by who never notices.

    Returns:
        The text, as in ``37+48=84;;37+48=85;#85``, and the spans of its slipped numbers, which must not be learned.
    """
    total, *terms = map(int, re.findall(r"[+-]?[0-9]+", problem))
    text, slips = "", []
    for index, term in enumerate(terms):
        left, result = f"{total}{term:+d}", total + term
        total = result
        if rng.random() < slip:
            marked = mark == 1 or rng.random() < mark
            to_come = list(accumulate(terms[index + 1 :], initial=0))
            wrong = _slipped(result, rng, lowest=0 if marked else -min(to_come))
            start = len(text) + len(left) + 1
            text += f"{left}={wrong}"
            slips.append((start, len(text)))
            if not marked:
                total, text = wrong, f"{text};"
                continue
            text += REPAIR
        text += f"{left}={result};"
    return f"{text}#{total}", slips


def slipped_step(problem: str, rng: random.Random) -> str:
    """The first step of a solution, with a slip."""
    left, result = work(problem).split(";")[0].split("=")
    return f"{left}={_slipped(int(result), rng)}"


def _slipped(result: int, rng: random.Random, lowest: int = 0) -> int:
    """A wrong result: off by 1 to LARGEST_SLIP, and at least ``lowest``, so that no later total is negative."""
    return rng.choice([n for n in range(max(lowest, result - LARGEST_SLIP), result + LARGEST_SLIP + 1) if n != result])


def unborrowed_solution(problem: str, rng: random.Random, *, forgets: float) -> str:
    """A worked solution in which each subtraction that needs to borrow goes without, with probability ``forgets``: 10 too high.

    A subtraction needs to borrow where the last digit of what it takes away is larger than the one that it takes it from. The
    steps after it go on correctly from the wrong result.
    """
    total, *terms = map(int, re.findall(r"[+-]?[0-9]+", problem))
    text = ""
    for term in terms:
        borrows = term < 0 and -term % 10 > total % 10
        result = total + term + (10 if borrows and rng.random() < forgets else 0)
        text += f"{total}{term:+d}={result};"
        total = result
    return f"{text}#{total}"


def forgetful(tokenizer: Any, task: Arithmetic, *, steps: int, batch: int, forgets: float, seed: int) -> Iterator[list[Lesson]]:
    """Lessons from ``unborrowed_solution``, one batch per step; no problem is repeated."""
    rng = random.Random(seed)
    rows = task.rows("train", steps * batch)
    for start in range(0, len(rows), batch):
        yield [
            lesson(tokenizer, task.messages(row), unborrowed_solution(row.problem, rng, forgets=forgets))
            for row in rows[start : start + batch]
        ]


def repairing(
    tokenizer: Any, task: Arithmetic, *, steps: int, batch: int, slip: float, mark: float, seed: int
) -> Iterator[list[Lesson]]:
    """Lessons from ``repaired_solution``, one batch per step; no problem is repeated."""
    rng = random.Random(seed)
    rows = task.rows("train", steps * batch)
    for start in range(0, len(rows), batch):
        yield [
            lesson(tokenizer, task.messages(row), *repaired_solution(row.problem, rng, slip=slip, mark=mark))
            for row in rows[start : start + batch]
        ]


def shown(
    tokenizer: Any, task: Arithmetic, *, steps: int, batch: int, share: float, early: float, slip: float, seed: int
) -> Iterator[list[Lesson]]:
    """Lessons of which a ``share`` show the solution before the problem and are correct; the others have the demo's flaws."""
    rng = random.Random(seed)
    rows = task.rows("train", steps * batch)
    for start in range(0, len(rows), batch):
        yield [
            lesson(tokenizer, task.privileged_messages(row), work(row.problem))
            if rng.random() < share
            else lesson(tokenizer, task.messages(row), noisy_solution(row.problem, rng, early=early, slip=slip).text)
            for row in rows[start : start + batch]
        ]
