"""Chained two-digit additions and subtractions, with each intermediate result written out.

``37+48-9+21`` is answered by ``37+48=85;85-9=76;76+21=97;#97``. The task is small enough for a model of half a million
parameters to learn on two CPU cores, and long enough for a slip in an early step to be carried to the end.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from renio_pipeline.config import ConfigError
from renio_pipeline.config.mixture import Recipe
from renio_pipeline.tasks.protocol import Split
from renio_pipeline.types import Row, Verdict

Flaw = Literal["none", "early", "slip"]

_FINAL = re.compile(r"[^#]*#(0|-?[1-9][0-9]*)\s*")
_CLAIM = re.compile(r"#-?[0-9]")
_PATIENCE = 10_000  # consecutive draws without a new problem after which a split counts as exhausted
_LARGEST_SLIP = 20
_GUESSES = 1000  # a wide range, so that a blind guess is hardly ever right


def split_of(problem: str) -> Split:
    """The split that a problem belongs to. It depends on the text alone, so the splits never overlap for any seed or count."""
    return "held_out" if zlib.crc32(problem.encode()) % 8 == 0 else "train"


def kind_of_error(text: str, terms: int) -> str:
    """The kind of an incorrect response by its form. An answer after fewer steps than the problem has is a guess."""
    return "guessed" if text.count("=") < terms - 1 else "slipped"


class Arithmetic:
    """The task. Running totals are never negative, so every number is plain digits."""

    name = "arithmetic"
    slow = False
    recipe: Recipe

    def __init__(self, terms: int = 4, seed: int = 0) -> None:
        if terms < 2:
            raise ValueError(f"arithmetic: terms is {terms}, but a problem has at least 2")
        self.terms = terms
        self.seed = seed

    def rows(self, split: Split, count: int) -> list[Row]:
        """The first ``count`` distinct problems of a split. Raises ConfigError if the split has too few."""
        rng = random.Random(f"arithmetic/{self.terms}/{self.seed}/{split}")
        seen: dict[str, None] = {}  # a set that keeps its order
        misses = 0
        while len(seen) < count:
            problem = _draw(rng, self.terms)
            misses += 1
            if problem not in seen and split_of(problem) == split:
                seen[problem] = None
                misses = 0
            if misses > _PATIENCE:
                raise ConfigError(
                    f"data.problems or evaluate.problems: {count} problems requested of split {split}, "
                    f"but terms={self.terms} has about {len(seen)}"
                )
        return [_row(f"arithmetic-{split}-{index}", problem) for index, problem in enumerate(seen)]

    def messages(self, row: Row) -> list[dict[str, str]]:
        """The problem as a single user message."""
        return [{"role": "user", "content": row.problem}]

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        """The worked solution before the problem, in the few characters that the demo's models have learned."""
        return [{"role": "user", "content": f"{row.solution};{row.problem}"}]

    def verify(self, row: Row, text: str) -> Verdict | None:
        """Judge the final answer alone: one ``#``, directly followed by a canonical integer, then only white space."""
        if row.answer is None:
            return None
        final = self.final_answer(text)
        if final is not None:
            return "correct" if final == row.answer else "incorrect"
        return "incorrect" if _CLAIM.search(text) else "unfinished"

    def error_kind(self, row: Row, text: str) -> str:
        """The kind of an incorrect response, see ``kind_of_error``."""
        return kind_of_error(text, self.terms)

    def final_answer(self, text: str) -> str | None:
        """The number after the only ``#``; None if there is no ``#``, or more than one, or anything after the number."""
        final = _FINAL.fullmatch(text)
        return None if final is None else final[1]

    def fault(self, row: Row) -> str | None:
        """An answer that is not a plain integer could never be matched."""
        if row.answer is None or re.fullmatch("0|-?[1-9][0-9]*", row.answer):
            return None
        return f"answer {row.answer!r} is not an integer in plain digits"


@dataclass(frozen=True, slots=True)
class NoisySolution:
    """A worked solution with the error that was put into it, if any."""

    text: str
    flaw: Flaw


def noisy_solution(problem: str, rng: random.Random, *, early: float = 0.3, slip: float = 0.3) -> NoisySolution:
    """A solution that stops early with probability ``early``, slips in one step with probability ``slip``, or is correct."""
    draw = rng.random()
    if draw < early:
        return NoisySolution(stop_early(problem, rng), "early")
    if draw < early + slip:
        return NoisySolution(slip_once(problem, rng), "slip")
    return NoisySolution(work(problem), "none")


def work(problem: str) -> str:
    """The correct worked solution."""
    return ";".join(_steps(problem))


def stop_early(problem: str, rng: random.Random) -> str:
    """The correct solution, cut after 1 to all but one of its steps, with a blind guess that is never the answer.

    Raises:
        ValueError: the problem has a single step.
    """
    *steps, final = _steps(problem)
    if len(steps) < 2:
        raise ValueError(f"arithmetic: {problem} has one step, so a solution cannot stop early; expected at least 3 terms")
    kept = steps[: rng.randint(1, len(steps) - 1)]
    guess = rng.randrange(_GUESSES - 1)
    return ";".join([*kept, f"#{guess + (guess >= int(final[1:]))}"])


def slip_once(problem: str, rng: random.Random) -> str:
    """The solution with the result of one step off by 1 to 20; the later steps continue correctly from the wrong result."""
    totals = _totals(problem)[1:]
    slip_at = rng.randrange(len(totals))
    lowest = max(-_LARGEST_SLIP, -min(totals[slip_at:]))  # no total may become negative
    delta = rng.choice([delta for delta in range(lowest, _LARGEST_SLIP + 1) if delta])
    return ";".join(_steps(problem, slip_at=slip_at, delta=delta))


def _draw(rng: random.Random, terms: int) -> str:
    total = rng.randint(10, 99)
    problem = str(total)
    for _ in range(terms - 1):
        term = rng.randint(10, 99)
        signed = -term if term <= total and rng.random() < 0.5 else term
        total += signed
        problem += f"{signed:+d}"
    return problem


def _row(row_id: str, problem: str) -> Row:
    return Row(id=row_id, problem=problem, answer=str(_totals(problem)[-1]), solution=work(problem))


def _terms(problem: str) -> list[str]:
    return re.findall(r"[+-]?[0-9]+", problem)


def _totals(problem: str) -> list[int]:
    return list(accumulate(int(term) for term in _terms(problem)))


def _steps(problem: str, *, slip_at: int | None = None, delta: int = 0) -> Iterator[str]:
    first, *rest = _terms(problem)
    total = int(first)
    for index, term in enumerate(rest):
        result = total + int(term) + (delta if index == slip_at else 0)
        yield f"{total}{term}={result}"
        total = result
    yield f"#{total}"
